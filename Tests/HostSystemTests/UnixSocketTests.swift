import Foundation
import HostSystem
import Testing

@Suite struct UnixSocketTests {
  private let place = TemporaryFolder()

  @Test func pathsAreAsLongAsTheyAre() throws {
    let folder = place.path + "/" + String(repeating: "long", count: 40)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let path = folder + "/socket"
    let listener = try UnixSocket.listen(path)
    defer { close(listener) }
    let descriptor = UnixSocket.make()
    defer { close(descriptor) }
    #expect(UnixSocket.use(path, descriptor, connect) == ENAMETOOLONG)
    #expect(UnixSocket.connect(descriptor, to: path) == 0)
    let accepted = UnixSocket.accept(listener, isBlocking: false)
    #expect(accepted >= 0)
    close(accepted)
    var status = stat()
    #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
  }

  @Test func onlyASocketItselfIsConnectedWith() throws {
    let listener = try UnixSocket.listen(place.path + "/socket")
    defer { close(listener) }
    try FileManager.default.createSymbolicLink(atPath: place.path + "/link", withDestinationPath: "socket")
    try place.put("text", at: "file")
    let descriptor = UnixSocket.make()
    defer { close(descriptor) }
    for name in ["link", "file"] { #expect(UnixSocket.connect(descriptor, to: place.path + "/" + name) == ENOTSOCK) }
    #expect(UnixSocket.connect(descriptor, to: place.path + "/none") == ENOENT)
    #expect(UnixSocket.connect(descriptor, to: place.path + "/socket") == 0)
  }

  /// However it spends the time.
  @Test func aLineIsWaitedForUntilThen() throws {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    defer { for end in ends { close(end) } }
    #expect(write(ends[1], "half", 4) == 4)
    let deadline = MonotonicClock.nanoseconds() + 50_000_000
    #expect(UnixSocket.readLine(from: ends[0], longest: 100, until: deadline) == nil)
    #expect(MonotonicClock.nanoseconds() >= deadline)
    #expect(write(ends[1], "whole\n", 6) == 6)
    #expect(UnixSocket.readLine(from: ends[0], longest: 100, until: deadline + 10_000_000_000) == Array("whole".utf8))
  }

  @Test func aDeadSocketIsReplacedAndALiveOneIsNot() throws {
    let path = place.path + "/socket"
    close(try UnixSocket.listen(path))
    let listener = try UnixSocket.listen(path)
    let error = #expect(throws: HostError.self) { _ = try UnixSocket.listen(path) }
    #expect(error?.code == EADDRINUSE)
    close(listener)
  }
}
