import CHost
import Foundation
import HostSystem
import Synchronization

/// The console on this process's standard input and output.
///
/// Where the input is a terminal, it is put into raw mode, so that every key reaches the guest, and given back on every
/// way out: `stop`, exit() and signals. Keys after Ctrl-] are commands (`EscapeSequence`). Where the input is a pipe or a
/// file, its bytes go to the guest as they are; its end means no more input, not the end of the machine.
///
/// The output may be anything. Up to 1 MiB waits for a slow reader, then the guest waits. Once the reader is gone,
/// output is thrown away.
public final class TerminalConsole: ConsoleBackend {
  /// Bytes typed at a terminal that may wait for the guest. It is read on beyond that, so that commands always work.
  private static let mostTyped = 1 << 20
  /// How long, in seconds, output may stand still before it is given up, after somebody asked to quit.
  private static let patienceAfterQuit: TimeInterval = 1

  /// Called on the I/O thread, possibly while the guest's device waits in `write`: hand the work over and return.
  public var onQuit: (() -> Void)?
  public var onPause: (() -> Void)?
  public var onBreak: (() -> Void)?
  /// What Ctrl-] ? shows.
  public var help = EscapeSequence.help

  /// Whether somebody types at a terminal: raw mode and commands are in use.
  public let isInteractive: Bool
  /// What to tell that person at the start; nil when nobody types.
  public var escapeDescription: String? { isInteractive ? EscapeSequence.summary : nil }

  private let input: Int32
  private let output: Int32
  private let queue = OutputQueue()
  // Set once, at the start, before the guest runs.
  private var writer: HostThread?
  private var loop: EventLoop?
  private let quitting = Atomic<Bool>(false)

  // The rest is the I/O thread's.
  private var inputWatch: EventLoop.Token?
  private var resizeWatch: EventLoop.Token?
  private var deliver: ((UnsafeRawBufferPointer) -> Int)?
  private var resize: ((Int, Int) -> Void)?
  private var pending = PendingInput()
  private var escape = EscapeSequence()
  private var lastSize: (columns: Int, rows: Int)?
  private var isRaw = false

  /// The descriptors stay the caller's.
  public init(input: Int32 = STDIN_FILENO, output: Int32 = STDOUT_FILENO) {
    self.input = input
    self.output = output
    isInteractive = isatty(input) == 1
  }

  /// Throws `ConsoleError` when the terminal can't be put into raw mode.
  public func start(
    on loop: EventLoop, input deliver: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws {
    precondition(writer == nil, "a terminal console is started once")
    BrokenPipes.becomeErrors()
    if isInteractive {
      guard chost_terminal_enter_raw(input) == 0 else {
        if errno == EBUSY { throw ConsoleError(.inUse, "the terminal is in use by another console") }
        throw ConsoleError(.unavailable, HostError.last("can't put the terminal into raw mode").message)
      }
      isRaw = true
    }
    self.loop = loop
    self.deliver = deliver
    self.resize = resize
    let (queue, output) = (queue, output)
    writer = HostThread(name: "console-out") { TerminalConsole.writeOut(queue, to: output) }
    // A closed standard input (the service manager's choice, say) can't be watched.
    if chost_fcntl(input, F_GETFD, 0) >= 0 {
      inputWatch = loop.watch(input, for: .read) { [weak self] _ in self?.readInput() }
    }
    if isatty(output) == 1 || isInteractive { watchSize(on: loop) }
  }

  // MARK: - Window size

  private func watchSize(on loop: EventLoop) {
    let descriptor = chost_terminal_resize_descriptor()
    guard descriptor >= 0 else { return }
    resizeWatch = loop.watch(descriptor, for: .read) { [weak self] _ in
      var count: UInt64 = 0
      _ = read(descriptor, &count, 8)
      self?.passSizeOn()
    }
    passSizeOn()
  }

  private func passSizeOn() {
    var (columns, rows): (Int32, Int32) = (0, 0)
    guard
      chost_terminal_size(output, &columns, &rows) == 0 || chost_terminal_size(input, &columns, &rows) == 0
    else { return }
    if let lastSize, lastSize == (Int(columns), Int(rows)) { return }
    lastSize = (Int(columns), Int(rows))
    resize?(Int(columns), Int(rows))
  }

  // MARK: - Input

  private func readInput() {
    guard inputWatch != nil else { return }
    // The descriptor may block, and what was there may have been read while the output was waited for (`write`).
    var readiness = pollfd(fd: input, events: Int16(POLLIN), revents: 0)
    guard poll(&readiness, 1, 0) > 0 else { return }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(input, &buffer, buffer.count)
    guard count > 0 else {
      if count < 0, errno == EAGAIN || errno == EINTR { return }
      // The end of a file or pipe, or a terminal that hung up.
      if let inputWatch { loop?.cancel(inputWatch) }
      inputWatch = nil
      return
    }
    accept(buffer[..<count])
    offerInput()
  }

  private func accept(_ bytes: ArraySlice<UInt8>) {
    guard isInteractive else { return pending.append(bytes) }
    for event in escape.events(in: bytes) {
      switch event {
      case .input(let bytes): pending.append(bytes.prefix(max(0, TerminalConsole.mostTyped - pending.count)))
      case .command(.quit):
        quitting.store(true, ordering: .relaxed)
        onQuit?()
      case .command(.pause): onPause?()
      case .command(.sendBreak): onBreak?()
      case .command(.help): for line in help { show(line) }
      }
    }
  }

  private func offerInput() {
    guard let deliver else { return }
    PendingInput.offer(of: self, \.pending, to: deliver)
    // A pipe or file waits in the host until the guest takes more.
    if !isInteractive, let inputWatch { loop?.change(inputWatch, to: pending.isEmpty ? .read : []) }
  }

  public func guestHasRoom() { offerInput() }

  /// Shows a line of Yadori's own on the error output, readable in raw mode too.
  public func show(_ line: String) {
    let end = isRaw ? "\r\n" : "\n"
    FileHandle.standardError.write(Data((line + end).utf8))
  }

  // MARK: - Output

  public func write(_ bytes: UnsafeRawBufferPointer) {
    let isLoop = loop?.isCurrent ?? false
    queue.append(bytes, interval: 0.1) { _ in
      // Not started: nobody will make room. On the I/O thread: nobody else would see the keys that end this wait.
      if writer == nil { return .giveUp }
      if isLoop { readCommandsWhileWaiting() }
      return .keepWaiting
    }
  }

  /// What is typed while the I/O thread waits for the output: commands act, the rest stays pending, because the guest's
  /// device isn't ready to be called.
  private func readCommandsWhileWaiting() {
    guard isInteractive, inputWatch != nil else { return }
    var descriptor = pollfd(fd: input, events: Int16(POLLIN), revents: 0)
    guard poll(&descriptor, 1, 0) > 0, descriptor.revents & Int16(POLLIN) != 0 else { return }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(input, &buffer, buffer.count)
    guard count > 0 else { return }
    accept(buffer[..<count])
    loop?.perform { [weak self] in self?.offerInput() }
    // Whoever quits doesn't wait for a reader that stands still.
    if quitting.load(ordering: .relaxed) { queue.discard() }
  }

  /// The writing thread. Blocking writes: making the descriptor non-blocking would change it for every program that
  /// shares the terminal.
  private static func writeOut(_ queue: OutputQueue, to output: Int32) {
    while let bytes = queue.take() {
      var written = 0
      while written < bytes.count {
        // In pieces, so that progress can be seen.
        let wanted = min(bytes.count - written, 4096)
        let count = bytes.withUnsafeBytes { Glibc.write(output, $0.baseAddress! + written, wanted) }
        if count > 0 {
          written += count
          queue.written(count)
        } else if count < 0, errno == EAGAIN {
          var descriptor = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
          _ = poll(&descriptor, 1, -1)
        } else if count < 0, errno == EINTR {
          continue
        } else {
          // EPIPE, EIO, EBADF: nobody reads any more.
          queue.discard()
          queue.written(bytes.count - written)
          break
        }
      }
    }
  }

  public func stop() {
    guard let loop, writer != nil else { return }
    loop.performAndWait { [self] in
      if let inputWatch { loop.cancel(inputWatch) }
      if let resizeWatch { loop.cancel(resizeWatch) }
      (inputWatch, resizeWatch, deliver, resize) = (nil, nil, nil, nil)
    }
    queue.close()
    queue.waitUntilWritten { quitting.load(ordering: .relaxed) ? TerminalConsole.patienceAfterQuit : nil }
    if isRaw { chost_terminal_leave_raw() }
    isRaw = false
  }
}
