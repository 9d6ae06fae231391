import Console
import Foundation
import HostSystem

/// A pseudo terminal: the test holds the master's side, as a terminal emulator does.
final class PseudoTerminal {
  let master: Int32
  let slave: Int32
  let slavePath: String

  init() {
    var (master, slave): (Int32, Int32) = (-1, -1)
    precondition(openpty(&master, &slave, nil, nil, nil) == 0)
    (self.master, self.slave) = (master, slave)
    slavePath = String(cString: ttyname(slave))
  }

  deinit {
    close(slave)
    close(master)
  }

  var mode: termios {
    var mode = termios()
    precondition(tcgetattr(slave, &mode) == 0)
    return mode
  }

  var isRaw: Bool { mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == 0 && mode.c_oflag & tcflag_t(OPOST) == 0 }

  func type(_ bytes: [UInt8]) { _ = write(master, bytes, bytes.count) }
  func type(_ text: String) { type(Array(text.utf8)) }

  func setSize(columns: UInt16, rows: UInt16) {
    var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
    precondition(ioctl(master, UInt(TIOCSWINSZ), &size) == 0)
  }

  /// What the console wrote, as soon as it has `count` bytes.
  func read(_ count: Int) -> [UInt8] { readBytes(master, count) }
}

func sameMode(_ one: termios, _ other: termios) -> Bool {
  (one.c_iflag, one.c_oflag, one.c_cflag, one.c_lflag) == (other.c_iflag, other.c_oflag, other.c_cflag, other.c_lflag)
}

/// Reads until there are `count` bytes, the end, or nothing has come for half a minute.
func readBytes(_ descriptor: Int32, _ count: Int) -> [UInt8] {
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65536)
  while bytes.count < count {
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&waiting, 1, 30_000) > 0 else { break }
    let got = Glibc.read(descriptor, &buffer, min(buffer.count, count - bytes.count))
    guard got > 0 else { break }
    bytes += buffer[..<got]
  }
  return bytes
}

/// A pipe; both ends closed at the end of a test.
final class TestPipe {
  private(set) var reading: Int32
  private(set) var writing: Int32

  init() {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    (reading, writing) = (ends[0], ends[1])
  }

  func closeReading() {
    if reading >= 0 { close(reading) }
    reading = -1
  }

  func closeWriting() {
    if writing >= 0 { close(writing) }
    writing = -1
  }

  func put(_ text: String) { _ = write(writing, text, text.utf8.count) }

  deinit {
    closeReading()
    closeWriting()
  }
}

/// The guest's side of a console: keeps what it takes. It runs on the test's own thread, or on the loop's.
final class TestGuest {
  let console: any ConsoleBackend
  let loop: EventLoop
  private(set) var typed: [UInt8] = []
  private(set) var sizes: [[Int]] = []
  /// Bytes it has room for.
  var room = Int.max

  init(_ console: any ConsoleBackend, on loop: EventLoop) throws {
    self.console = console
    self.loop = loop
    try console.start(
      on: loop,
      input: { [unowned self] bytes in
        let count = min(room, bytes.count)
        typed += bytes[..<count]
        if room != .max { room -= count }
        return count
      }, resize: { [unowned self] in sizes.append([$0, $1]) })
  }

  var typedText: String { String(decoding: typed, as: UTF8.self) }

  func print(_ text: String) { Array(text.utf8).withUnsafeBytes { console.write($0) } }

  /// Turns the loop until `condition` holds; false when that takes too long to be anything but a failure.
  func turn(until condition: () -> Bool) -> Bool {
    let deadline = Date(timeIntervalSinceNow: 30)
    while !condition() {
      if Date() > deadline { return false }
      loop.turn(maximumWait: 20)
    }
    return true
  }

  /// Turns the loop a few times, in which nothing is expected to happen.
  func settle() { for _ in 0..<5 { loop.turn(maximumWait: 10) } }
}

/// A path for a socket or a file, short enough for both; removed at the end.
final class TemporaryPath {
  let path = NSTemporaryDirectory() + "/yadori-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
  deinit { unlink(path) }
  var bytes: [UInt8] { [UInt8](FileManager.default.contents(atPath: path) ?? Data()) }
}
