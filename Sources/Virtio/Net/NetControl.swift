/// Which frames the driver wants (virtio 1.2, 5.1.6.5.1 and 5.1.6.5.2).
struct ReceiveFilter: Codable, Equatable {
  /// More addresses than this aren't kept; everything of their kind is accepted then.
  static let tableSize = 64

  var address: MACAddress
  /// On until the driver says otherwise, so that a simple driver gets its frames.
  var isPromiscuous = true
  var acceptsAllMulticast = false
  var unicast: Set<MACAddress> = []
  var multicast: Set<MACAddress> = []
  var unicastOverflowed = false
  var multicastOverflowed = false

  init(address: MACAddress) { self.address = address }

  func accepts(_ frame: UnsafeRawBufferPointer, features: UInt64) -> Bool {
    if isPromiscuous || features & VirtioNet.Feature.controlReceive == 0 { return true }
    guard let destination = MACAddress(bytes: Array(frame[..<6])) else { return false }
    if destination.isMulticast {
      return acceptsAllMulticast || multicastOverflowed || destination.bytes.allSatisfy { $0 == 0xff }
        || multicast.contains(destination)
    }
    return unicastOverflowed || destination == address || unicast.contains(destination)
  }
}

/// The control queue: a class, a command, its data and room for one byte of answer (virtio 1.2, 5.1.6.5).
extension VirtioNet {
  func serveControl(_ chain: DescriptorChain) throws -> UInt32 {
    var reader = chain.reader
    guard let commandClass = reader.read(UInt8.self), let command = reader.read(UInt8.self),
      chain.writableCount >= 1
    else {
      throw VirtqueueError.requestMalformed("a control command without a header or without room for its answer")
    }
    let isDone =
      switch (commandClass, command) {
      case (0, 0...1): setReceiveMode(command, &reader)
      case (1, 0): setAddressTables(&reader)
      case (1, 1): setAddress(&reader)
      case (4, 0): setActivePairs(&reader)
      default: false
      }
    if !isDone { counters.withLock { $0.controlErrors += 1 } }
    var writer = chain.writer
    writer.write(UInt8(isDone ? 0 : 1))
    return 1
  }

  private func setReceiveMode(_ command: UInt8, _ reader: inout SegmentReader) -> Bool {
    guard features & Feature.controlReceive != 0, let value = reader.read(UInt8.self) else { return false }
    if command == 0 { filter.isPromiscuous = value != 0 } else { filter.acceptsAllMulticast = value != 0 }
    return true
  }

  private func setAddress(_ reader: inout SegmentReader) -> Bool {
    guard features & Feature.controlMAC != 0, reader.remaining == 6, let address = readAddress(&reader) else {
      return false
    }
    filter.address = address
    showAddress()
    return true
  }

  private func setAddressTables(_ reader: inout SegmentReader) -> Bool {
    guard features & Feature.controlReceive != 0, let unicast = readTable(&reader), let multicast = readTable(&reader)
    else { return false }
    filter.unicast = unicast.addresses
    filter.unicastOverflowed = unicast.overflowed
    filter.multicast = multicast.addresses
    filter.multicastOverflowed = multicast.overflowed
    return true
  }

  private func readTable(_ reader: inout SegmentReader) -> (addresses: Set<MACAddress>, overflowed: Bool)? {
    guard let entries = reader.read(UInt32.self), Int(entries) * 6 <= reader.remaining else { return nil }
    guard entries <= ReceiveFilter.tableSize else {
      reader.skip(Int(entries) * 6)
      return ([], true)
    }
    var addresses: Set<MACAddress> = []
    for _ in 0..<entries {
      guard let address = readAddress(&reader) else { return nil }
      addresses.insert(address)
    }
    return (addresses, false)
  }

  private func readAddress(_ reader: inout SegmentReader) -> MACAddress? {
    var bytes = [UInt8](repeating: 0, count: 6)
    guard bytes.withUnsafeMutableBytes({ reader.read(into: $0) }) else { return nil }
    return MACAddress(bytes: bytes)
  }

  private func setActivePairs(_ reader: inout SegmentReader) -> Bool {
    guard features & Feature.multiqueue != 0, let pairs = reader.read(UInt16.self),
      (1...queuePairs).contains(Int(pairs))
    else { return false }
    activePairs = Int(pairs)
    return true
  }
}
