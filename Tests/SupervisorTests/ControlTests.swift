import Foundation
import HostSystem
import Supervisor
import Synchronization
import Testing
import Yadori

/// What is said on a machine's control socket, without a machine.
@Suite struct ControlTests {
  private let folder: MachineFolder

  init() throws {
    folder = MachineFolder(
      FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)"))
    try folder.create()
  }

  /// A machine that is saved answers when that is done, however long it takes; another one that is silent is given up.
  @Test(arguments: [true, false])
  func whoIsBeingSavedIsWaitedFor(isBeingSaved: Bool) throws {
    defer { try? FileManager.default.removeItem(at: folder.url) }
    let lock = try #require(try folder.takeLock())
    defer { withExtendedLifetime(lock) {} }
    // Who waits asks for that each time its patience ends.
    let questions = Atomic<Int>(0)
    let (asked, over) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    var handlers = ControlServer.Handlers(status: {
      if questions.add(1, ordering: .relaxed).newValue == 2 { asked.signal() }
      return MachineStatus(isBeingSaved: isBeingSaved)
    })
    handlers.publish = { _ in
      if isBeingSaved { asked.wait() } else { over.wait() }
      return nil
    }
    let server = try ControlServer(folder, handlers)
    let client = ControlClient(folder, name: "web", patience: 1)
    if isBeingSaved {
      try client.publish("2222:22")
    } else {
      #expect(throws: MachineError.self) { try client.publish("2222:22") }
    }
    over.signal()
    server.end(exitCode: 0)
  }

  /// Whoever has the machine's process make something gets that, and nothing that is elsewhere.
  @Test func whatIsMadeIsAFile() throws {
    defer { try? FileManager.default.removeItem(at: folder.url) }
    let target = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)").path
    defer { unlink(target) }
    var handlers = ControlServer.Handlers(status: { MachineStatus(isBeingSaved: false) })
    handlers.keepCode = { path in
      symlink("/etc/hostname", path)
      return nil
    }
    let server = try ControlServer(folder, handlers)
    defer { server.end(exitCode: 0) }
    let error = #expect(throws: MachineError.self) { try ControlClient(folder, name: "web").keepCode(at: target) }
    #expect(error?.message.contains("something else") == true, "\(error?.message ?? "")")
    var status = stat()
    #expect(lstat(target, &status) != 0)
  }

  /// Those who wait hear how it ended; those who have left meanwhile leave nothing.
  @Test(.timeLimit(.minutes(1))) func theEndIsToldToThoseWhoWait() throws {
    defer { try? FileManager.default.removeItem(at: folder.url) }
    let lock = try #require(try folder.takeLock())
    let server = try ControlServer(folder, .init { MachineStatus(isBeingSaved: false) })
    let folder = self.folder
    let code = Mutex<Int32?>(nil)
    let waiter = HostThread(name: "waiter") {
      let answer = try? ControlClient(folder, name: "web", patience: 1).wait()
      code.withLock { $0 = answer ?? nil }
    }
    while server.waiterCount == 0 { usleep(1000) }
    let leaver = HostThread(name: "leaver") {
      #expect((try? ControlClient(folder, name: "web").waitForEnd(seconds: 1)) == false)
    }
    while server.waiterCount == 1 { usleep(1000) }
    leaver.join()
    while server.waiterCount == 2 { usleep(1000) }
    server.end(exitCode: 7)
    waiter.join()
    #expect(code.withLock { $0 } == 7)
    withExtendedLifetime(lock) {}
  }
}
