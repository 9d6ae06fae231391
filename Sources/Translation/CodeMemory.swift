import CHost
import Glibc
import HostSystem

/// Memory for generated code: shared anonymous memory mapped twice, once to be written and once to be executed, so that no
/// address is ever both. The executable mapping lies below 4 GiB, so that a code address fits 32 bits.
///
/// What is complete is settled: moved into private memory of large pages, which the host's address translation covers with
/// far fewer entries. Shared memory doesn't get them on most hosts. The few jumps in there that are led elsewhere later
/// are changed while their page isn't executable.
///
/// Not a memory file, which would do as well: perf(1) takes code in a file to have its symbols there, and looks into its
/// map of generated code (`PerfMap`) only for anonymous memory.
final class CodeMemory {
  let writable: UnsafeMutablePointer<UInt8>
  let executable: UInt
  /// Size in bytes.
  let count: Int
  /// Where the second half begins.
  var middle: UnsafeMutablePointer<UInt8> { writable + count / 2 }
  /// What lies below, as a place in the writable mapping, is settled, and can't be written there any more.
  private(set) var settledEnd: UnsafeMutablePointer<UInt8>
  private var settles = HostResources.hasLargePages

  /// Throws `HostError` where the host refuses executable memory.
  ///
  /// - Parameters:
  ///   - count: bytes, a multiple of the page size.
  ///   - quietLimit: stretches without new code or changes after which code is settled or changed.
  init(count: Int, quietLimit: Int) throws {
    self.quietLimit = quietLimit
    let flags = Int32(MAP_SHARED) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)
    let write = mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0)
    guard let write, write != MAP_FAILED else { throw HostError.last("can't map memory for generated code") }
    do {
      let place = try Self.reserveLow(count)
      guard chost_map_again(write, count, place) != nil, mprotect(place, count, PROT_READ | PROT_EXEC) == 0 else {
        let error = HostError.last(
          "this host doesn't let a program execute code that it made; use --engine interpreter")
        munmap(place, count)
        throw error
      }
      executable = UInt(bitPattern: place)
    } catch {
      munmap(write, count)
      throw error
    }
    writable = write.assumingMemoryBound(to: UInt8.self)
    settledEnd = writable
    completeEnd = writable
    populatedEnd = writable
    populatedBehindEnd = writable + count / 2
    self.count = count
  }

  // MARK: pages before they are needed

  private static let stepAhead = 256 << 10

  /// Where that was done to, in both halves.
  private var populatedEnd: UnsafeMutablePointer<UInt8>
  private var populatedBehindEnd: UnsafeMutablePointer<UInt8>

  /// Has the host give the memory from there on before it is written and executed: by the step, not by the page, each of
  /// which would trap twice.
  @inline(__always)
  func populate(from cursor: UnsafeMutablePointer<UInt8>, behind: UnsafeMutablePointer<UInt8>) {
    if cursor >= populatedEnd { populateStep(&populatedEnd, cursor) }
    if behind >= populatedBehindEnd { populateStep(&populatedBehindEnd, behind) }
  }

  /// Where the host can't, it gives each page as it is touched.
  @inline(never)
  private func populateStep(_ end: inout UnsafeMutablePointer<UInt8>, _ cursor: UnsafeMutablePointer<UInt8>) {
    let start = writable + ((cursor - writable) & ~(Self.stepAhead - 1))
    end = min(start + Self.stepAhead, writable + count)
    madvise(start, end - start, Int32(MADV_POPULATE_WRITE))
    madvise(executablePlace(of: start), end - start, Int32(MADV_POPULATE_READ))
  }

  // MARK: large pages

  private static let largePage = 2 << 20

  /// What lies below is complete and fills whole large pages.
  private var completeEnd: UnsafeMutablePointer<UInt8>
  /// Stretches since that was last moved on.
  private var stretchesSinceComplete = 0

  /// Notes that what lies below `cursor` is complete. It is settled when no more has come for a while: a large page
  /// costs the host much, and programs that begin have other things to do.
  @inline(__always)
  func noteComplete(below cursor: UnsafeMutablePointer<UInt8>) {
    if cursor - completeEnd < Self.largePage { return }
    completeEnd = writable + ((cursor - writable) & ~(Self.largePage - 1))
    stretchesSinceComplete = 0
  }

  /// Stretches between one large page and the next, that no guest waits long.
  private static let settleInterval = 64

  private func settle() {
    if settles { settles = settlePage() }
  }

  /// False where the host doesn't let it: all stays as it was.
  private func settlePage() -> Bool {
    let size = Self.largePage
    let flags = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)
    guard let room = mmap(nil, 2 * size, PROT_READ | PROT_WRITE, flags, -1, 0), room != MAP_FAILED else { return false }
    let page = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: room) + UInt(size) - 1) & ~UInt(size - 1))!
    if page != room { munmap(room, page - room) }
    munmap(page + size, room + size - page)
    madvise(page, size, Int32(MADV_HUGEPAGE))
    page.copyMemory(from: settledEnd, byteCount: size)
    guard mprotect(page, size, PROT_READ | PROT_EXEC) == 0,
      chost_move_mapping(page, size, executablePlace(of: settledEnd)) != nil
    else {
      munmap(page, size)
      return false
    }
    // The first one has the code that every block shares, and stays for when all begins anew.
    if settledEnd != writable { madvise(settledEnd, size, Int32(MADV_REMOVE)) }
    settledEnd += size
    return true
  }

  private func executablePlace(of location: UnsafeMutablePointer<UInt8>) -> UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(location) + executableOffset
  }

  /// Where settled jumps go that are to be changed: their distances' places, and what to write there.
  private let changes = UnsafeMutablePointer<(location: UnsafeMutablePointer<UInt8>, distance: Int32)>
    .allocate(capacity: CodeMemory.changeCapacity)
  private var changeCount = 0
  private static let changeCapacity = 512
  /// Stretches since the last change.
  private var quietStretches = 0
  /// After so many, nothing more is waited for.
  private let quietLimit: Int

  /// Leads a complete block's jump, whose distance is at `location`, to `target`. A settled one waits till there are
  /// several to be changed, and goes by way of what it led to, which becomes a jump, too.
  func lead(_ location: UnsafeMutablePointer<UInt8>, to target: UInt) {
    let place = executablePlace(of: location)
    let distance = HostJump.distance(at: place, to: target)
    if location >= settledEnd {
      UnsafeMutableRawPointer(location).storeBytes(of: distance, as: Int32.self)
      return
    }
    let way = UnsafeMutablePointer<UInt8>(bitPattern: Int(bitPattern: HostJump.target(at: place)) &- executableOffset)!
    if way >= settledEnd { HostJump.write(way, at: executablePlace(of: way), to: target) }
    changes[changeCount] = (location, distance)
    changeCount += 1
    quietStretches = 0
    if changeCount == Self.changeCapacity { applyChanges() }
  }

  /// To be called once a stretch: few changes don't wait for ever.
  @inline(__always)
  func noteStretch() {
    if settledEnd < completeEnd {
      stretchesSinceComplete += 1
      if stretchesSinceComplete == quietLimit {
        settle()
        stretchesSinceComplete -= Self.settleInterval
      }
    }
    if changeCount == 0 { return }
    quietStretches += 1
    if quietStretches == quietLimit { applyChanges() }
  }

  /// Where the host doesn't let settled code be changed it stays as it is.
  private func applyChanges() {
    let size = Self.largePage
    for page in stride(from: writable, to: settledEnd, by: size) {
      let place = executablePlace(of: page)
      var isWritable = false
      for index in 0..<changeCount {
        let change = changes[index]
        // It may lie across two pages' border, of which the second may not be settled.
        let low = max(page, change.location)
        let high = min(page + size, change.location + HostJump.size)
        if low >= high { continue }
        if !isWritable, mprotect(place, size, PROT_READ | PROT_WRITE) != 0 { break }
        isWritable = true
        _ = withUnsafeBytes(of: change.distance) {
          memcpy(executablePlace(of: low), $0.baseAddress! + (low - change.location), high - low)
        }
      }
      if isWritable {
        precondition(mprotect(place, size, PROT_READ | PROT_EXEC) == 0, "the host won't execute code any more")
      }
    }
    for index in 0..<changeCount where changes[index].location + HostJump.size > settledEnd {
      let change = changes[index]
      withUnsafeBytes(of: change.distance) {
        let settled = settledEnd - change.location
        memcpy(settledEnd, $0.baseAddress! + settled, HostJump.size - settled)
      }
    }
    changeCount = 0
  }

  /// Lets all of it be written again. What the first large page held is as before, the rest as nobody knows.
  func unsettle() {
    changeCount = 0
    completeEnd = writable
    populatedEnd = writable
    populatedBehindEnd = middle
    guard settledEnd != writable else { return }
    let size = settledEnd - writable
    let place = UnsafeMutableRawPointer(bitPattern: executable)
    precondition(
      chost_map_again(writable, size, place) != nil && mprotect(place, size, PROT_READ | PROT_EXEC) == 0,
      "the host has no memory for generated code any more")
    settledEnd = writable
  }

  /// The first place below 4 GiB that is free, taken.
  private static func reserveLow(_ count: Int) throws -> UnsafeMutableRawPointer {
    // MAP_FIXED_NOREPLACE of <linux/mman.h>: there or not at all.
    let flags = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE) | 0x100000
    for address in stride(from: 1 << 28, through: (1 << 32) - count, by: 1 << 24) {
      let wanted = UnsafeMutableRawPointer(bitPattern: address)
      guard let found = mmap(wanted, count, PROT_NONE, flags, -1, 0), found != MAP_FAILED else {
        if errno == EEXIST { continue }
        break
      }
      // A kernel that doesn't know the flag takes the address for a wish.
      if found == wanted { return found }
      munmap(found, count)
      errno = ENOMEM
      break
    }
    throw HostError.last("no room below 4 GiB for generated code; use --engine interpreter")
  }

  /// What to add to a writable address to get the executable one.
  var executableOffset: Int { Int(bitPattern: executable) &- Int(bitPattern: writable) }

  deinit {
    changes.deallocate()
    munmap(writable, count)
    munmap(UnsafeMutableRawPointer(bitPattern: executable), count)
  }
}
