import Foundation
import HTTPTestServer
import Images
import Synchronization
import Testing

@Suite struct DownloaderTests {
  let scratch = Scratch()
  let content = noise(200_000)

  private func item(
    _ server: HTTPTestServer, _ name: String = "file", byteCount: UInt64? = nil, sha256 checksum: String? = nil,
    isOptional: Bool = false
  ) -> Downloader.Item {
    Downloader.Item(
      url: "\(server.address)/\(name)", path: scratch[name], byteCount: byteCount ?? UInt64(content.count),
      sha256: checksum ?? sha256(content), isOptional: isOptional)
  }

  @discardableResult
  private func fetch(_ items: Downloader.Item..., task: ImageTask = ImageTask()) throws -> Set<String> {
    try Downloader(scratch: scratch.path, task: task).fetch(items, step: .fetchingPackages)
  }

  @Test func fetchesSeveralFiles() throws {
    let server = try HTTPTestServer()
    let files = (0..<9).map { ("file\($0)", noise(10_000 * $0 + 1, seed: UInt64($0))) }
    for (name, bytes) in files { server["/" + name] = .init(bytes) }
    let items = files.map {
      Downloader.Item(
        url: "\(server.address)/\($0.0)", path: scratch[$0.0], byteCount: UInt64($0.1.count), sha256: sha256($0.1))
    }
    let here = try Downloader(scratch: scratch.path, task: ImageTask()).fetch(items, step: .fetchingPackages)
    #expect(here == Set(items.map(\.path)))
    for (name, bytes) in files { #expect(scratch.bytes(name) == bytes) }
    #expect(scratch.names() == files.map(\.0))
  }

  @Test func asksNothingForWhatIsThere() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    try fetch(item(server))
    #expect(server.requests == [.init("/file")])
    server.forgetRequests()
    #expect(try fetch(item(server)) == [scratch["file"]])
    #expect(server.requests.isEmpty)
    // What was damaged since isn't used.
    try scratch.put(noise(200_000, seed: 9), at: "file")
    try fetch(item(server))
    #expect(server.requests == [.init("/file")])
    #expect(scratch.bytes("file") == content)
  }

  @Test func filesWithoutChecksumAreFetchedAnew() throws {
    let server = try HTTPTestServer(["/list": .init("one")])
    let list = Downloader.Item(url: server.address + "/list", path: scratch["list"])
    try fetch(list)
    server["/list"] = .init("two")
    try scratch.put("half of something", at: "list.part")
    try fetch(list)
    #expect(scratch.bytes("list") == Array("two".utf8))
    #expect(server.requests == [.init("/list"), .init("/list")])
  }

  @Test func goesOnAfterACut() throws {
    var page = HTTPTestServer.Page(content)
    page.cuts = [70_000, 50_000]
    let server = try HTTPTestServer(["/file": page])
    try fetch(item(server))
    #expect(scratch.bytes("file") == content)
    #expect(server.requests == [.init("/file"), .init("/file", from: 70_000), .init("/file", from: 120_000)])
    #expect(scratch.names() == ["file"])
  }

  @Test func aServerThatAlwaysCutsIsGivenUp() throws {
    var page = HTTPTestServer.Page(content)
    page.cuts = [Int](repeating: 1000, count: 100)
    let server = try HTTPTestServer(["/file": page])
    imageError(.unavailable, says: "\(server.address)/file") { try fetch(item(server)) }
    #expect(server.requests.count == 5)
    #expect(scratch.bytes("file") == nil)
    // The next try goes on where this one ended.
    server["/file"] = .init(content)
    server.forgetRequests()
    try fetch(item(server))
    #expect(server.requests == [.init("/file", from: 5000)])
    #expect(scratch.bytes("file") == content)
  }

  @Test func aDamagedPartIsFetchedAgain() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    try scratch.put(noise(5000, seed: 2), at: "file.part")
    try fetch(item(server))
    #expect(server.requests == [.init("/file", from: 5000), .init("/file")])
    #expect(scratch.bytes("file") == content)
  }

  @Test func aServerThatCanNotGoOnBeginsAgain() throws {
    var page = HTTPTestServer.Page(content)
    page.takesRanges = false
    let server = try HTTPTestServer(["/file": page])
    try scratch.put(Array(content[..<5000]), at: "file.part")
    try fetch(item(server))
    #expect(scratch.bytes("file") == content)
    #expect(server.requests.last == .init("/file"))
  }

  @Test func aWrongChecksumIsNamedAndNothingIsUsed() throws {
    let server = try HTTPTestServer(["/file": .init(noise(200_000, seed: 3)), "/good": .init(content)])
    let good = item(server, "good")
    imageError(.corrupt, says: "\(server.address)/file has a wrong checksum", "another mirror") {
      try fetch(item(server), good)
    }
    // What was right is kept for the next time.
    #expect(scratch.names() == ["good"])
  }

  @Test func wrongSizesAreNamed() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    imageError(.corrupt, says: "/file has 200000 bytes, but the list says 200001") {
      try fetch(item(server, byteCount: 200_001))
    }
    imageError(.corrupt, says: "/file is larger than the 1000 bytes that the list says") {
      try fetch(item(server, byteCount: 1000))
    }
    #expect(scratch.bytes("file") == nil)
  }

  @Test func missingFiles() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    imageError(.notFound, says: "\(server.address)/nothing", "check the URL") { try fetch(item(server, "nothing")) }
    let here = try fetch(item(server, "nothing", isOptional: true), item(server))
    #expect(here == [scratch["file"]])
    #expect(scratch.names() == ["file"])
  }

  @Test func refusalsAreNamed() throws {
    var page = HTTPTestServer.Page("go away")
    page.status = 403
    let server = try HTTPTestServer(["/file": page])
    imageError(.unavailable, says: "\(server.address)/file", "403", "--mirror") { try fetch(item(server)) }
    #expect(scratch.bytes("file") == nil)
  }

  @Test func anUnreachableServer() throws {
    let port = try HTTPTestServer.freePort()
    let unreachable = Downloader.Item(
      url: "http://127.0.0.1:\(port)/file", path: scratch["file"], sha256: sha256(content))
    imageError(.unavailable, says: "http://127.0.0.1:\(port)/file", "check the network") { try fetch(unreachable) }
    #expect(scratch.names().isEmpty)
  }

  @Test func redirectionsLeadToServersOnly() throws {
    let secret = try scratch.put(content, at: "secret")
    let server = try HTTPTestServer(["/there": .init(content), "/file": .init(redirectingTo: "/there")])
    try fetch(item(server))
    #expect(scratch.bytes("file") == content)
    server["/other"] = .init(redirectingTo: "file://" + secret)
    imageError(.unavailable, says: "/other") { try fetch(item(server, "other")) }
    #expect(scratch.bytes("other") == nil)
  }

  @Test func passwordsAreNotShown() throws {
    let server = try HTTPTestServer()
    let port = server.port
    let error = imageError(.notFound, says: "http://127.0.0.1:\(port)/x") {
      try fetch(Downloader.Item(url: "http://user:secret@127.0.0.1:\(port)/x", path: scratch["x"]))
    }
    #expect(error?.message.contains("secret") == false)
  }

  @Test(arguments: ["\"", "\\", "\n"])
  func urlsCanNotGiveCurlOrders(character: String) throws {
    let hostile = Downloader.Item(url: "http://127.0.0.1:1/\(character)output = x", path: scratch["x"])
    imageError(.usage, says: "can't be there") { try fetch(hostile) }
  }

  @Test func aFullDiskIsSaidSo() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    // Every write to it fails as on a full disk.
    try FileManager.default.createSymbolicLink(atPath: scratch["file.part"], withDestinationPath: "/dev/full")
    imageError(.inputOutput, says: scratch["file.part"], "the disk is full", "free some space") {
      try fetch(item(server))
    }
    #expect(scratch.bytes("file") == nil)
  }

  @Test func aDownloadThatWillNotFitIsNotBegun() throws {
    let server = try HTTPTestServer(["/file": .init(content)])
    imageError(.inputOutput, says: scratch.path, "free some space") {
      try fetch(item(server, byteCount: 1 << 60))
    }
    #expect(server.requests.isEmpty)
  }

  @Test func stopsWhenAsked() throws {
    var page = HTTPTestServer.Page(content)
    let gate = DispatchSemaphore(value: 0)
    page.gate = gate
    let server = try HTTPTestServer(["/file": page])
    let running = Mutex<ImageTask?>(nil)
    let task = ImageTask(progress: { progress in
      if progress.completedBytes ?? 0 > 0 { running.withLock { $0?.cancel() } }
    })
    running.withLock { $0 = task }
    imageError(.cancelled, says: "stopped") { try fetch(item(server), task: task) }
    gate.signal()
    #expect(scratch.bytes("file") == nil)
    // What had come is gone on with.
    let part = try #require(scratch.bytes("file.part")?.count)
    server.forgetRequests()
    try fetch(item(server))
    #expect(server.requests == [.init("/file", from: part)])
    #expect(scratch.bytes("file") == content)
  }

  @Test func progressGoesToTheEnd() throws {
    var page = HTTPTestServer.Page(content)
    let gate = DispatchSemaphore(value: 0)
    page.gate = gate
    let server = try HTTPTestServer(["/file": page])
    let seen = Mutex<[ImageProgress]>([])
    let task = ImageTask(progress: { progress in
      seen.withLock { $0.append(progress) }
      if progress.completedBytes ?? 0 > 0 { gate.signal() }
    })
    try fetch(item(server), task: task)
    let all = seen.withLock { $0 }
    #expect(all.contains { $0.step == .fetchingPackages && $0.totalBytes == 200_000 && $0.completedBytes ?? 0 > 0 })
    #expect(all.allSatisfy { (0...1).contains($0.fraction ?? 0) })
  }
}

@Suite struct FileCacheTests {
  let scratch = Scratch()

  @Test(arguments: ["../x", "a/../../x", "..", "", "/", "."])
  func namesThatLeaveItAreRefused(name: String) throws {
    let cache = try FileCache(folder: scratch["cache"], task: ImageTask())
    imageError(.corrupt, says: "which can't be") { _ = try cache.path(name) }
  }

  @Test func makesFolders() throws {
    let cache = try FileCache(folder: scratch["cache"], task: ImageTask())
    #expect(try cache.path("lists/a/b") == scratch["cache/lists/a/b"])
    #expect(scratch.names(in: "cache") == ["lists", "lists/a", "lock"])
  }

  @Test func onlyOneWritesInIt() throws {
    let first = try FileCache(folder: scratch["cache"], task: ImageTask())
    let warnings = Mutex<[String]>([])
    let running = Mutex<ImageTask?>(nil)
    let task = ImageTask(warning: { text in
      warnings.withLock { $0.append(text) }
      running.withLock { $0?.cancel() }
    })
    running.withLock { $0 = task }
    imageError(.cancelled) { _ = try FileCache(folder: scratch["cache"], task: task) }
    #expect(warnings.withLock { $0 }.first?.contains("another yadori") == true)
    withExtendedLifetime(first) {}
  }

  @Test func itsPlaceFollowsTheEnvironment() {
    #expect(FileCache.standardFolder(environment: ["XDG_CACHE_HOME": "/c", "HOME": "/h"]) == "/c/yadori")
    #expect(FileCache.standardFolder(environment: ["XDG_CACHE_HOME": "relative", "HOME": "/h"]) == "/h/.cache/yadori")
  }
}
