/// Typed bytes that the guest hasn't taken yet. On the I/O thread only.
struct PendingInput {
  private var bytes: [UInt8] = []
  private var isOffering = false

  var isEmpty: Bool { bytes.isEmpty }
  var count: Int { bytes.count }

  mutating func append(_ more: some Collection<UInt8>) { bytes.append(contentsOf: more) }

  mutating func removeAll() { bytes = [] }

  /// Offers what is pending for as long as the guest takes some of it. `pending` reaches the owner's stored value each
  /// time anew: the guest's answer may lead back here (more room, more input).
  static func offer<Owner: AnyObject>(
    of owner: Owner, _ pending: ReferenceWritableKeyPath<Owner, PendingInput>, to input: (UnsafeRawBufferPointer) -> Int
  ) {
    guard !owner[keyPath: pending].isOffering else { return }
    owner[keyPath: pending].isOffering = true
    defer { owner[keyPath: pending].isOffering = false }
    while true {
      let offered = owner[keyPath: pending].bytes
      if offered.isEmpty { return }
      let taken = min(max(0, offered.withUnsafeBytes(input)), offered.count)
      if taken == 0 { return }
      let left = owner[keyPath: pending].bytes.count
      owner[keyPath: pending].bytes.removeFirst(min(taken, left))
    }
  }
}
