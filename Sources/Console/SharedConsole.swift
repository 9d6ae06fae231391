import HostSystem
import Synchronization

/// Several guest consoles (a UART and a virtio console) on one real one. What any of them prints appears; what is typed
/// goes to the one that printed last, because that is where the person sees the prompt: firmware on the UART first, then
/// the kernel on its own console.
public final class SharedConsole: @unchecked Sendable {
  private let backend: any ConsoleBackend
  private let ends = Mutex<[End]>([])
  /// The number of the end that gets the input.
  private let active = Atomic<Int>(0)
  private let followsOutput: Bool

  // The I/O thread's.
  private var loop: EventLoop?
  private var startedCount = 0
  private var size: (columns: Int, rows: Int)?

  /// Shares `backend`, which nobody else may start. `followsOutput` false: input always goes to the first end made.
  public init(_ backend: any ConsoleBackend, followsOutput: Bool = true) {
    self.backend = backend
    self.followsOutput = followsOutput
  }

  /// One more end, to be given to a device of the guest. The first one made gets the input until another one prints.
  public func makeEnd() -> any ConsoleBackend {
    ends.withLock { ends in
      let end = End(self, number: ends.count)
      ends.append(end)
      return end
    }
  }

  private func end(_ number: Int) -> End? { ends.withLock { $0.indices.contains(number) ? $0[number] : nil } }

  private func start(_ end: End, on loop: EventLoop) throws {
    if startedCount == 0 {
      try backend.start(
        on: loop,
        input: { [weak self] bytes in
          guard let self else { return 0 }
          return self.end(active.load(ordering: .relaxed))?.input?(bytes) ?? 0
        },
        resize: { [weak self] columns, rows in
          guard let self else { return }
          size = (columns, rows)
          for end in ends.withLock({ $0 }) { end.resize?(columns, rows) }
        })
      self.loop = loop
    } else if let size {
      end.resize?(size.columns, size.rows)
    }
    startedCount += 1
    if end.number == active.load(ordering: .relaxed) { backend.guestHasRoom() }
  }

  private func stopOne() {
    startedCount -= 1
    if startedCount == 0 { backend.stop() }
  }

  private func write(_ bytes: UnsafeRawBufferPointer, from end: End) {
    if followsOutput, active.load(ordering: .relaxed) != end.number {
      active.store(end.number, ordering: .relaxed)
      // What the other one hadn't taken yet is this one's now.
      end.loop?.perform { [weak self] in self?.guestHasRoom(end) }
    }
    backend.write(bytes)
  }

  private func guestHasRoom(_ end: End) {
    if end.input != nil, active.load(ordering: .relaxed) == end.number { backend.guestHasRoom() }
  }

  private final class End: ConsoleBackend {
    let number: Int
    private let shared: SharedConsole
    /// Set once, before the guest runs.
    private(set) var loop: EventLoop?
    // The I/O thread's.
    private(set) var input: ((UnsafeRawBufferPointer) -> Int)?
    private(set) var resize: ((Int, Int) -> Void)?

    init(_ shared: SharedConsole, number: Int) {
      self.shared = shared
      self.number = number
    }

    func start(
      on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
      resize: @escaping (_ columns: Int, _ rows: Int) -> Void
    ) throws {
      self.loop = loop
      self.input = input
      self.resize = resize
      do {
        try shared.start(self, on: loop)
      } catch {
        (self.input, self.resize) = (nil, nil)
        throw error
      }
    }

    func write(_ bytes: UnsafeRawBufferPointer) { shared.write(bytes, from: self) }

    func guestHasRoom() { shared.guestHasRoom(self) }

    func stop() {
      guard let loop else { return }
      // The backend's stop may wait for a slow reader: not inside the loop, unless this is it.
      let wasStarted = loop.performAndWait { [self] in
        defer { (input, resize) = (nil, nil) }
        return input != nil
      }
      if wasStarted { shared.stopOne() }
    }
  }
}
