import Foundation
import HostSystem

/// A console in memory, for programs that hold a conversation with the guest: it keeps what the guest printed, and types
/// what the program says. Every method may be called from any thread.
public final class BufferConsole: ConsoleBackend, @unchecked Sendable {
  private let condition = NSCondition()
  private let capacity: Int
  // Under the condition's lock.
  private var kept: [UInt8] = []
  private var forgotten = 0
  private var typed: [UInt8] = []
  private var loop: EventLoop?
  private var size: (columns: Int, rows: Int)?
  // The I/O thread's.
  private var pending = PendingInput()
  private var deliver: ((UnsafeRawBufferPointer) -> Int)?
  private var resize: ((Int, Int) -> Void)?

  /// At least the newest `capacity` bytes of output are kept. `columns` and `rows`: the terminal's size, nil without one.
  public init(capacity: Int = 16 << 20, size: (columns: Int, rows: Int)? = nil) {
    self.capacity = max(1, capacity)
    self.size = size
  }

  private func locked<Result>(_ body: () throws -> Result) rethrows -> Result {
    condition.lock()
    defer { condition.unlock() }
    return try body()
  }

  // MARK: - The program's side

  /// What the guest printed, as far as it is kept.
  public var output: [UInt8] { locked { kept } }

  /// `output` as text; what isn't UTF-8 is replaced.
  public var text: String { String(decoding: output, as: UTF8.self) }

  /// Bytes printed since the start: the position after the last one.
  public var position: Int { locked { forgotten + kept.count } }

  /// Types to the guest.
  public func type(_ text: String) { type(Array(text.utf8)) }

  public func type(_ bytes: [UInt8]) {
    let loop = locked {
      typed.append(contentsOf: bytes)
      return self.loop
    }
    loop?.perform { [weak self] in self?.offerInput() }
  }

  /// Waits until the guest prints `text` at or after `position` (a value that this method or `position` gave), at most
  /// `timeout` seconds. Returns the position after the text, or nil when the time is over.
  public func wait(for text: String, after position: Int = 0, timeout: TimeInterval) -> Int? {
    let wanted = Array(text.utf8)
    let deadline = Date(timeIntervalSinceNow: timeout)
    return locked {
      var from = position
      while true {
        if let found = find(wanted, from: from) { return found }
        // The text may have begun in what is here by now.
        from = max(position, forgotten + kept.count - wanted.count + 1)
        if !condition.wait(until: deadline) { return find(wanted, from: from) }
      }
    }
  }

  private func find(_ wanted: [UInt8], from position: Int) -> Int? {
    var start = max(0, position - forgotten)
    if wanted.isEmpty { return start + forgotten }
    while start + wanted.count <= kept.count {
      if kept[start] == wanted[0], kept[start..<start + wanted.count].elementsEqual(wanted) {
        return forgotten + start + wanted.count
      }
      start += 1
    }
    return nil
  }

  /// Tells the guest a new terminal size.
  public func setSize(columns: Int, rows: Int) {
    let loop = locked {
      size = (columns, rows)
      return self.loop
    }
    loop?.perform { [weak self] in self?.resize?(columns, rows) }
  }

  // MARK: - The guest's side

  public func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws {
    deliver = input
    self.resize = resize
    let size = locked {
      self.loop = loop
      return self.size
    }
    if let size { resize(size.columns, size.rows) }
    loop.perform { [weak self] in self?.offerInput() }
  }

  private func offerInput() {
    let new = locked {
      defer { typed = [] }
      return typed
    }
    pending.append(new)
    if let deliver { PendingInput.offer(of: self, \.pending, to: deliver) }
  }

  public func write(_ bytes: UnsafeRawBufferPointer) {
    locked {
      kept.append(contentsOf: bytes)
      // Seldom, so that forgetting costs little a byte.
      if kept.count / 2 >= capacity {
        let excess = kept.count - capacity
        kept.removeFirst(excess)
        forgotten += excess
      }
      condition.broadcast()
    }
  }

  public func guestHasRoom() { offerInput() }

  public func stop() {
    let loop = locked {
      defer { self.loop = nil }
      return self.loop
    }
    loop?.performAndWait { [self] in
      (deliver, resize) = (nil, nil)
      pending.removeAll()
    }
  }
}
