import Glibc

/// What the guest's kernel says on a file system device's queues: FUSE, version 7 of its protocol, as Linux' header
/// include/uapi/linux/fuse.h has it. All numbers are little-endian.
enum Fuse {
  static let majorVersion: UInt32 = 7
  /// What is served is in this minor version; older kernels than Linux 5.4 (7.31) aren't.
  static let minorVersion: UInt32 = 38
  static let oldestMinorVersion: UInt32 = 31
  /// Of the node that is the root of everything.
  static let rootNode: UInt64 = 1
  static let longestName = 255
  /// A path in a symbolic link.
  static let longestPath = 4095

  enum Operation: UInt32 {
    case lookup = 1
    case forget, getAttributes, setAttributes, readLink, makeSymbolicLink
    case makeNode = 8
    case makeFolder, unlink, removeFolder, rename, link, open, read, write, fileSystemStatus, release
    case sync = 20
    case setExtended, getExtended, listExtended, removeExtended, flush, initialize, openFolder, readFolder
    case releaseFolder, syncFolder, getLock, setLock, setLockWaiting
    case create = 35
    case interrupt
    case destroy = 38
    case forgetMany = 42
    case allocate, readFolderPlus, renameWithFlags, seek, copyRange
    case syncFileSystem = 50
  }

  /// Agreed on at the begin (flags of FUSE_INIT).
  enum Feature {
    static let asynchronousReads: UInt32 = 1 << 0
    static let locks: UInt32 = 1 << 1
    static let truncatesWhenOpening: UInt32 = 1 << 3
    static let bigWrites: UInt32 = 1 << 5
    static let wholeFileLocks: UInt32 = 1 << 10
    static let invalidatesData: UInt32 = 1 << 12
    static let readsFoldersPlus: UInt32 = 1 << 13
    static let readsFoldersPlusWherePays: UInt32 = 1 << 14
    static let asynchronousDirectReads: UInt32 = 1 << 15
    static let parallelFolderOperations: UInt32 = 1 << 18
    static let maximumPages: UInt32 = 1 << 22
    static let cachesLinks: UInt32 = 1 << 23
    static let dropsPrivileges: UInt32 = 1 << 28

    static let all =
      asynchronousReads | truncatesWhenOpening | bigWrites | invalidatesData | readsFoldersPlus
      | readsFoldersPlusWherePays | asynchronousDirectReads | parallelFolderOperations | maximumPages | cachesLinks
      | dropsPrivileges | locks | wholeFileLocks
  }

  /// What SETATTR changes (FATTR_).
  struct Change: OptionSet {
    let rawValue: UInt32
    static let mode = Change(rawValue: 1 << 0)
    static let user = Change(rawValue: 1 << 1)
    static let group = Change(rawValue: 1 << 2)
    static let size = Change(rawValue: 1 << 3)
    static let accessTime = Change(rawValue: 1 << 4)
    static let modificationTime = Change(rawValue: 1 << 5)
    static let handle = Change(rawValue: 1 << 6)
    static let accessTimeNow = Change(rawValue: 1 << 7)
    static let modificationTimeNow = Change(rawValue: 1 << 8)
    static let dropsPrivileges = Change(rawValue: 1 << 11)
  }

  /// Bytes that one read or write moves at most: 256 pages.
  static let largestTransfer: UInt32 = 1 << 20
  static let mostPages: UInt16 = 256
}

/// A refusal with a number of Linux' (errno), which means the same to the guest.
struct FuseError: Error, Equatable {
  let code: Int32
  init(_ code: Int32) { self.code = code }
}

/// The answer isn't there yet: the request is to be asked again, then at the latest.
struct FuseWait: Error {
  /// Of `MonotonicClock`, nanoseconds; nil: soon.
  var until: UInt64?
}

/// What each request begins with (fuse_in_header), 40 bytes.
struct FuseHeader {
  let operation: UInt32
  let unique: UInt64
  let node: UInt64
  let user: UInt32
  let group: UInt32

  init?(_ reader: inout SegmentReader) {
    guard reader.read(UInt32.self) != nil, let operation = reader.read(UInt32.self),
      let unique = reader.read(UInt64.self), let node = reader.read(UInt64.self), let user = reader.read(UInt32.self),
      let group = reader.read(UInt32.self), reader.read(UInt64.self) != nil
    else { return nil }
    self.operation = operation
    self.unique = unique
    self.node = node
    self.user = user
    self.group = group
  }
}

/// What stands behind a request's header. What isn't there is refused.
struct FuseArguments {
  var reader: SegmentReader

  mutating func take<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type = Value.self) throws -> Value {
    guard let value = reader.read(type) else { throw FuseError(EINVAL) }
    return value
  }

  mutating func skip(_ count: Int) { reader.skip(count) }

  /// So many bytes.
  mutating func bytes(_ count: Int) throws -> [UInt8] {
    guard count <= reader.remaining else { throw FuseError(EINVAL) }
    var bytes = [UInt8](repeating: 0, count: count)
    _ = bytes.withUnsafeMutableBytes { reader.read(into: $0) }
    return bytes
  }

  /// Text up to the zero that ends it, which it comes with, as host calls want it.
  mutating func text(limit: Int) throws -> [CChar] {
    var text: [CChar] = []
    while let byte = reader.read(CChar.self) {
      text.append(byte)
      if byte == 0 { return text }
      if text.count > limit { throw FuseError(ENAMETOOLONG) }
    }
    throw FuseError(EINVAL)
  }

  /// The name of something in a folder, and not a way out of it.
  mutating func name() throws -> [CChar] {
    let name = try text(limit: Fuse.longestName)
    let (dot, slash) = (CChar(UInt8(ascii: ".")), CChar(UInt8(ascii: "/")))
    guard name.count > 1, name != [dot, 0], name != [dot, dot, 0], !name.contains(slash) else {
      throw FuseError(EINVAL)
    }
    return name
  }
}

/// A reply's bytes behind its header, where they are few.
struct FuseReply {
  private(set) var bytes: [UInt8] = []

  mutating func put<Value: FixedWidthInteger>(_ value: Value) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func put(_ more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }

  mutating func zeros(_ count: Int) { bytes.append(contentsOf: repeatElement(0, count: count)) }

  mutating func cut(to count: Int) { bytes.removeLast(bytes.count - count) }
}
