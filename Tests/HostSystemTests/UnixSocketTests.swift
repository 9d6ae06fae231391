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
    #expect(UnixSocket.withShortPath(path) { UnixSocket.use($0, descriptor, connect) } == 0)
    let accepted = UnixSocket.accept(listener, isBlocking: false)
    #expect(accepted >= 0)
    close(accepted)
    var status = stat()
    #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
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
