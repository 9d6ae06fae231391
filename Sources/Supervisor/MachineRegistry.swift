import Foundation
import GRDB
import HostSystem
import Images
import Synchronization
import Yadori

/// The machines of this host: a database of what they are, and a folder for each. Whether one runs is not in it, but
/// seen at its lock, so that nothing is wrong after any process was killed.
public final class MachineRegistry: Sendable {
  /// Where the database and the machines' folders are.
  public let folder: URL
  private let opened = Mutex<DatabaseQueue?>(nil)

  /// Opens the registry, or makes one. Throws `MachineError`.
  public init(folder: URL) throws {
    self.folder = folder
    _ = try database()
    sweep()
  }

  /// For a machine's process, which was told its record: opened when it is used first.
  init(whenUsed folder: URL) { self.folder = folder }

  private func database() throws -> DatabaseQueue {
    try opened.withLock { opened in
      if let opened { return opened }
      let database = try openDatabase()
      opened = database
      return database
    }
  }

  private var path: String { folder.appendingPathComponent("machines.sqlite").path }

  private func openDatabase() throws -> DatabaseQueue {
    do {
      try FileManager.default.createDirectory(
        at: folder.appendingPathComponent("machines"), withIntermediateDirectories: true)
      var configuration = Configuration()
      // Other processes' transactions are short.
      configuration.busyMode = .timeout(30)
      let database = try DatabaseQueue(path: path, configuration: configuration)
      try Self.migrations.migrate(database)
      return database
    } catch let error as DatabaseError {
      throw Self.failure(error, path)
    } catch {
      throw MachineError(.cannotCreate, "can't keep machines in '\(folder.path)'; check its permissions")
    }
  }

  private static var migrations: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("machines") { database in
      try database.create(table: "machine") { table in
        table.primaryKey("identifier", .text)
        table.column("name", .text).notNull().unique()
        table.column("image", .text)
        table.column("configuration", .text).notNull()
        table.column("created", .datetime).notNull()
        table.column("isTemporary", .boolean).notNull()
        table.column("exitCode", .integer)
        table.column("ending", .text)
      }
    }
    migrator.registerMigration("machines that start with the host") { database in
      try database.alter(table: "machine") { table in
        table.add(column: "startsWithHost", .boolean).notNull().defaults(to: false)
      }
    }
    return migrator
  }

  private static func failure(_ error: DatabaseError, _ path: String) -> MachineError {
    let reason = error.message ?? "\(error.resultCode)"
    return MachineError(.inputOutput, "can't use the list of machines '\(path)': \(reason)")
  }

  private func use<Result>(_ body: (DatabaseQueue) throws -> Result) throws -> Result {
    do {
      return try body(try database())
    } catch let error as DatabaseError {
      throw Self.failure(error, path)
    }
  }

  // MARK: names

  /// Throws where a name can't be one; the rules are those of images.
  public static func checkName(_ name: String) throws {
    guard ImageStore.isValidName(name) else {
      throw MachineError(
        .usage, "'\(name)' can't name a machine; use lower-case letters, digits, '.', '_' and '-', at most 64")
    }
  }

  /// What is said where a name is another machine's.
  public static func taken(_ name: String) -> MachineError {
    MachineError(
      .unavailable, "there is a machine '\(name)' already; choose another name, or 'yadori remove \(name)' first")
  }

  // MARK: what there is

  /// By name.
  public func all() throws -> [MachineRecord] {
    try use { try $0.read { try MachineRecord.order(Column("name")).fetchAll($0) } }.map(withEnding)
  }

  public func record(named name: String) throws -> MachineRecord? {
    try use { try $0.read { try MachineRecord.filter(Column("name") == name).fetchOne($0) } }.map(withEnding)
  }

  /// The machines whose disks stand on an image.
  public func records(image: String) throws -> [MachineRecord] {
    try use { try $0.read { try MachineRecord.filter(Column("image") == image).order(Column("name")).fetchAll($0) } }
  }

  public func record(identifier: String) throws -> MachineRecord? {
    try use { try $0.read { try MachineRecord.fetchOne($0, key: identifier) } }.map(withEnding)
  }

  /// Processes of machines reach nothing but their own folders, so how one ended is there.
  private func withEnding(_ record: MachineRecord) -> MachineRecord {
    let ending = folder(of: record).lastEnding
    var record = record
    record.exitCode = ending?.exitCode
    record.ending = ending?.words
    return record
  }

  /// Has this process have nothing open of the list, until it is asked for something.
  public func close() { opened.withLock { $0 = nil } }

  /// The machine of this name. Throws `MachineError` where there is none, with the name that is most like it.
  public func find(_ name: String) throws -> MachineRecord {
    if let record = try record(named: name) { return record }
    let hint = nearestName(to: name, among: try all().map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
    throw MachineError(.noInput, "there is no machine '\(name)'\(hint) ('yadori list' shows what there is)")
  }

  public func folder(of record: MachineRecord) -> MachineFolder { folder(identifier: record.identifier) }

  public func folder(identifier: String) -> MachineFolder {
    MachineFolder(folder.appendingPathComponent("machines/\(identifier)"))
  }

  // MARK: changes

  /// Adds a machine. Throws `MachineError` where the name is taken.
  public func add(_ record: MachineRecord) throws { try add([record]) }

  /// Adds all of these machines, or none. Throws `MachineError` where a name is taken.
  public func add(_ records: [MachineRecord]) throws {
    for record in records { try Self.checkName(record.name) }
    try use { database in
      try database.write { database in
        for record in records {
          do {
            try record.insert(database)
          } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
            throw Self.taken(record.name)
          }
        }
      }
    }
  }

  /// Changes what is kept of a machine, as one step with what other processes change. Nothing happens to one that is gone.
  public func update(_ identifier: String, _ change: (inout MachineRecord) -> Void) throws {
    try use { database in
      try database.write { database in
        guard var record = try MachineRecord.fetchOne(database, key: identifier) else { return }
        change(&record)
        try record.update(database)
      }
    }
  }

  /// Does something in which a machine ends that is to run again: a temporary one doesn't go by that. Until it is done, it
  /// is as others are, whatever becomes of this process; if it doesn't run then, and nothing was thrown, it goes.
  public func whileKept(_ record: MachineRecord, _ body: () throws -> Void) throws {
    guard record.isTemporary else { return try body() }
    func setTemporary(_ isTemporary: Bool) throws { try update(record.identifier) { $0.isTemporary = isTemporary } }
    let folder = folder(of: record)
    try setTemporary(false)
    folder.keep(true)
    defer { folder.keep(false) }
    do {
      try body()
    } catch {
      // What has ended stays, for whoever wants to know why it doesn't run again.
      if folder.isInUse { try setTemporary(true) }
      throw error
    }
    try setTemporary(true)
    // It may have ended again before that.
    if !folder.isInUse { try? remove(record) }
  }

  /// Throws `MachineError` where there is no such machine, or the new name is taken or none.
  public func rename(_ name: String, to newName: String) throws {
    try Self.checkName(newName)
    let record = try find(name)
    try use { database in
      do {
        try database.write {
          try $0.execute(
            sql: "UPDATE machine SET name = ? WHERE identifier = ?", arguments: [newName, record.identifier])
        }
      } catch let error as DatabaseError where error.resultCode == .SQLITE_CONSTRAINT {
        throw Self.taken(newName)
      }
    }
  }

  /// Forgets a machine and deletes its folder. Throws `MachineError` where it runs.
  public func remove(_ record: MachineRecord) throws {
    let place = folder(of: record)
    if FileManager.default.fileExists(atPath: place.url.path) {
      guard let lock = try place.takeLock() else {
        throw MachineError(
          .unavailable, "the machine '\(record.name)' runs; 'yadori stop \(record.name)' first, or remove it by force")
      }
      try withExtendedLifetime(lock) {
        try forget(record)
        place.removeLock()
      }
    } else {
      try forget(record)
    }
  }

  /// The same by the process that holds the machine's lock.
  func forget(_ record: MachineRecord) throws {
    _ = try use { try $0.write { try MachineRecord.deleteOne($0, key: record.identifier) } }
    discard(folder(of: record).url)
    folder(of: record).removeMemory()
  }

  /// Where the machines' folders are. What is in those isn't trusted.
  private var machines: DistrustedFolder? {
    try? DistrustedFolder(path: folder.appendingPathComponent("machines").path)
  }

  /// Out of the way first: a folder that is half deleted is nobody's machine.
  private func discard(_ url: URL) {
    try? machines?.discard(url.lastPathComponent)
  }

  /// Seconds after which a temporary machine has been started, if it ever is.
  private static let startingTime: TimeInterval = 120

  /// Whether nobody has changed it for so long that whoever made it doesn't go on.
  private static func isOld(_ name: String, in folder: DistrustedFolder) -> Bool {
    folder.status(name).map { $0.st_mtim.tv_sec < time(nil) - 3600 } ?? false
  }

  /// Deletes temporary machines that have ended, and what processes that were killed have left: half of what they removed,
  /// saved machines that clones were to be made of, and folders of machines that were never added.
  private func sweep() {
    guard let records = try? all() else { return }
    for record in records where record.isTemporary && !folder(of: record).isInUse {
      // One that has ended has no more to do; one that hasn't begun may have.
      if record.ending != nil || record.created.timeIntervalSinceNow < -Self.startingTime { try? remove(record) }
    }
    let known = Set(records.map(\.identifier))
    guard let machines else { return }
    for name in machines.names() where !known.contains(name) {
      let isLeft =
        name.hasPrefix(".clone-") || name.hasPrefix("..clone-")
        || (MachineRecord.isIdentifier(name) && !folder(identifier: name).isInUse)
      if name.hasPrefix(DistrustedFolder.removedPrefix) || (isLeft && Self.isOld(name, in: machines)) {
        try? machines.remove(name)
      }
      sweepLock(name, known, in: machines)
      sweepMemory(name, in: machines)
    }
  }

  /// Deletes what a machine was restored from that doesn't run any more, and doesn't go on.
  private func sweepMemory(_ name: String, in machines: DistrustedFolder) {
    guard name.hasSuffix(MachineFolder.memorySuffix) else { return }
    let identifier = String(name.dropLast(MachineFolder.memorySuffix.count))
    let place = folder(identifier: identifier)
    guard MachineRecord.isIdentifier(identifier), Self.isOld(name, in: machines), !place.isInUse,
      !FileManager.default.fileExists(atPath: place.resumption), let lock = try? place.takeLock()
    else { return }
    withExtendedLifetime(lock) {
      if FileManager.default.fileExists(atPath: place.resumption) { return }
      place.removeMemory()
      if machines.status(identifier) == nil { place.removeLock() }
    }
  }

  /// Deletes a machine's lock where there is no such machine.
  private func sweepLock(_ name: String, _ known: Set<String>, in machines: DistrustedFolder) {
    guard name.hasSuffix(MachineFolder.lockSuffix), Self.isOld(name, in: machines) else { return }
    let identifier = String(name.dropLast(MachineFolder.lockSuffix.count))
    guard MachineRecord.isIdentifier(identifier), !known.contains(identifier), machines.status(identifier) == nil else {
      return
    }
    let place = folder(identifier: identifier)
    if let lock = try? place.takeLock() { withExtendedLifetime(lock) { place.removeLock() } }
  }

  /// The folder of a machine's snapshots; nil: there is none, and nothing else is one.
  public func snapshots(of record: MachineRecord) -> DistrustedFolder? {
    let place = folder(of: record)
    return try? DistrustedFolder(path: place.url.path).folder(place.snapshots.lastPathComponent)
  }

  /// Makes the folder of a machine's snapshots, and deletes there what killed processes have left. Throws `MachineError`.
  @discardableResult
  public func prepareSnapshots(of record: MachineRecord) throws -> DistrustedFolder {
    let place = folder(of: record)
    try? DistrustedFolder(path: place.url.path).makeFolder(place.snapshots.lastPathComponent)
    // Where that led elsewhere, other things would be deleted there.
    guard let snapshots = snapshots(of: record) else {
      throw MachineError(.data, "'\(place.snapshots.path)' isn't a folder; remove it")
    }
    for name in snapshots.names() where name.hasPrefix(".") && Self.isOld(name, in: snapshots) {
      try? snapshots.remove(name)
    }
    return snapshots
  }
}
