import Console
import Foundation
import HostSystem
import Testing

struct SocketConsoleTests {
  let loop: EventLoop
  let socketPath = TemporaryPath()
  init() throws { loop = try EventLoop() }

  /// Connects as a client does; nil when nobody listens.
  private func connectClient() -> Int32? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: socketPath.path.utf8) }
    let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(client, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    if connected == 0 { return client }
    close(client)
    return nil
  }

  private func put(_ client: Int32, _ text: String) { _ = send(client, text, text.utf8.count, Int32(MSG_NOSIGNAL)) }

  @Test func servesOneClientAfterTheOther() throws {
    let guest = try TestGuest(SocketConsole(path: socketPath.path), on: loop)
    guest.print("nobody hears this")
    for round in 1...3 {
      let client = try #require(connectClient())
      put(client, "\(round)")
      #expect(guest.turn { guest.typed.count == round })
      guest.print("hello \(round)")
      loop.turn(maximumWait: 1000)
      #expect(readBytes(client, 7) == Array("hello \(round)".utf8))
      close(client)
    }
    #expect(guest.typedText == "123")
    guest.console.stop()
    #expect(access(socketPath.path, F_OK) != 0)
  }

  @Test func theSecondClientWaitsForTheFirstToLeave() throws {
    let guest = try TestGuest(SocketConsole(path: socketPath.path), on: loop)
    let first = try #require(connectClient())
    let second = try #require(connectClient())
    put(first, "1")
    put(second, "2")
    #expect(guest.turn { guest.typedText == "1" })
    guest.settle()
    #expect(guest.typedText == "1")
    close(first)
    #expect(guest.turn { guest.typedText == "12" })
    close(second)
    guest.console.stop()
  }

  @Test func muchOutputReachesASlowClientWhole() throws {
    let console = SocketConsole(path: socketPath.path, patience: 60)
    let guest = try TestGuest(console, on: loop)
    loop.start()
    let client = try #require(connectClient())
    put(client, "x")
    while loop.performAndWait({ guest.typed.isEmpty }) {}
    let block = [UInt8]((0..<100_000).map { UInt8(truncatingIfNeeded: $0 % 251) })
    let writer = HostThread(name: "hart") { for _ in 0..<30 { block.withUnsafeBytes { console.write($0) } } }
    let received = readBytes(client, 3_000_000)
    writer.join()
    // Compared outside of #expect, which would look for the shortest list of differences.
    let isWhole = received == Array(repeatElement(block, count: 30).joined())
    #expect(isWhole)
    // The same from the I/O thread, where virtio devices write.
    loop.perform { for _ in 0..<30 { block.withUnsafeBytes { console.write($0) } } }
    let isWholeAgain = readBytes(client, 3_000_000) == received
    #expect(isWholeAgain)
    close(client)
    console.stop()
    loop.stop()
  }

  @Test func aSocketInUseIsRefusedAndADeadOneReplaced() throws {
    let guest = try TestGuest(SocketConsole(path: socketPath.path), on: loop)
    let error = #expect(throws: ConsoleError.self) { _ = try TestGuest(SocketConsole(path: socketPath.path), on: loop) }
    #expect(error?.code == .inUse)
    #expect(error?.message == "the socket '\(socketPath.path)' is in use by another program; choose another path")
    // A socket whose program has died without removing it.
    let dead = TemporaryPath()
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: dead.path.utf8) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    close(descriptor)
    let second = try TestGuest(SocketConsole(path: dead.path), on: loop)
    second.console.stop()
    guest.console.stop()
  }

  @Test(arguments: ["", String(repeating: "n", count: 108), "/nonexistent/socket"])
  func impossiblePathsAreRefused(path: String) {
    let error = #expect(throws: ConsoleError.self) { _ = try TestGuest(SocketConsole(path: path), on: loop) }
    #expect(error?.code == .unavailable)
    #expect(error?.message.contains("'\(path)'") == true)
  }
}
