import Console
import Foundation
import HostSystem
import Testing

struct BufferConsoleTests {
  let loop: EventLoop
  init() throws { loop = try EventLoop() }

  @Test func keepsOutputAndTypes() throws {
    let console = BufferConsole(size: (80, 25))
    console.type("early ")
    let guest = try TestGuest(console, on: loop)
    #expect(guest.sizes == [[80, 25]])
    console.type("late")
    #expect(guest.turn { guest.typedText == "early late" })
    guest.print("login: ")
    #expect(console.text == "login: ")
    #expect(console.position == 7)
    console.setSize(columns: 100, rows: 30)
    #expect(guest.turn { guest.sizes.last == [100, 30] })
    console.stop()
  }

  @Test func typedBytesWaitForRoom() throws {
    let console = BufferConsole()
    let guest = try TestGuest(console, on: loop)
    guest.room = 2
    console.type("abcd")
    #expect(guest.turn { guest.typedText == "ab" })
    guest.room = .max
    console.guestHasRoom()
    #expect(guest.typedText == "abcd")
  }

  @Test func waitsForTextAfterAPosition() throws {
    let console = BufferConsole()
    let print = { (text: String) in Array(text.utf8).withUnsafeBytes { console.write($0) } }
    print("one # ")
    let first = try #require(console.wait(for: "# ", timeout: 30))
    #expect(first == 6)
    #expect(console.wait(for: "# ", after: first, timeout: 0) == nil)
    // In pieces, from another thread, while this one waits.
    let thread = HostThread(name: "guest") {
      for character in "two # three" { Array(String(character).utf8).withUnsafeBytes { console.write($0) } }
    }
    #expect(console.wait(for: "# ", after: first, timeout: 30) == 12)
    thread.join()
    #expect(console.wait(for: "one", timeout: 0) == 3)
    #expect(console.wait(for: "", after: 4, timeout: 0) == 4)
  }

  @Test func forgetsTheOldestBeyondItsCapacity() {
    let console = BufferConsole(capacity: 100)
    let marker = Array("marker".utf8)
    marker.withUnsafeBytes { console.write($0) }
    for _ in 0..<1000 { [UInt8](repeating: 0x2E, count: 10).withUnsafeBytes { console.write($0) } }
    marker.withUnsafeBytes { console.write($0) }
    #expect(console.output.count >= 100 && console.output.count < 300)
    #expect(console.position == 10_012)
    #expect(console.wait(for: "marker", timeout: 0) == 10_012)
  }
}

struct FileConsoleTests {
  @Test func writesToTheFile() throws {
    let file = TemporaryPath()
    for (appending, expected) in [(false, "one"), (true, "oneone"), (false, "one")] {
      let console = try FileConsole(path: file.path, appending: appending)
      let guest = try TestGuest(console, on: EventLoop())
      guest.print("one")
      console.stop()
      #expect(String(decoding: file.bytes, as: UTF8.self) == expected)
      #expect(console.failure == nil)
    }
  }

  @Test func refusalsNameTheFile() throws {
    let error = #expect(throws: HostError.self) { _ = try FileConsole(path: "/nonexistent/log") }
    #expect(error?.message == "can't write the console to '/nonexistent/log': No such file or directory")
    let full = try FileConsole(path: "/dev/full")
    let guest = try TestGuest(full, on: EventLoop())
    guest.print("x")
    guest.print("y")
    #expect(full.failure?.code == ENOSPC)
  }
}

struct SharedConsoleTests {
  let loop: EventLoop
  let real = BufferConsole(size: (80, 24))
  init() throws { loop = try EventLoop() }

  @Test func inputFollowsOutput() throws {
    let shared = SharedConsole(real)
    let uart = try TestGuest(shared.makeEnd(), on: loop)
    let virtio = try TestGuest(shared.makeEnd(), on: loop)
    #expect(uart.sizes == [[80, 24]] && virtio.sizes == [[80, 24]])
    real.type("1")
    #expect(uart.turn { uart.typedText == "1" })
    virtio.print("hvc0")
    real.type("2")
    #expect(uart.turn { virtio.typedText == "2" })
    uart.print("ttyS0")
    real.type("3")
    #expect(uart.turn { uart.typedText == "13" })
    #expect(virtio.typedText == "2")
    #expect(real.text == "hvc0ttyS0")
    real.setSize(columns: 100, rows: 30)
    #expect(uart.turn { uart.sizes.last == [100, 30] && virtio.sizes.last == [100, 30] })
  }

  @Test func whatOneDidNotTakeGoesToTheNext() throws {
    let shared = SharedConsole(real)
    let uart = try TestGuest(shared.makeEnd(), on: loop)
    let virtio = try TestGuest(shared.makeEnd(), on: loop)
    uart.room = 1
    real.type("abc")
    #expect(uart.turn { uart.typedText == "a" })
    // Room at an end that isn't the active one changes nothing.
    virtio.console.guestHasRoom()
    #expect(virtio.typed.isEmpty)
    virtio.print("x")
    #expect(uart.turn { virtio.typedText == "bc" })
  }

  @Test func inputCanStayAtTheFirst() throws {
    let shared = SharedConsole(real, followsOutput: false)
    let uart = try TestGuest(shared.makeEnd(), on: loop)
    let virtio = try TestGuest(shared.makeEnd(), on: loop)
    virtio.print("x")
    real.type("a")
    #expect(uart.turn { uart.typedText == "a" })
    #expect(virtio.typed.isEmpty)
  }

  @Test func theRealOneStopsWithTheLast() throws {
    let shared = SharedConsole(real)
    let uart = try TestGuest(shared.makeEnd(), on: loop)
    let virtio = try TestGuest(shared.makeEnd(), on: loop)
    virtio.print("x")
    uart.console.stop()
    uart.console.stop()
    real.type("a")
    #expect(virtio.turn { virtio.typedText == "a" })
    virtio.console.stop()
    real.type("b")
    virtio.settle()
    #expect(virtio.typedText == "a")
  }
}
