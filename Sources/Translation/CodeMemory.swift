import CHost
import Glibc
import HostSystem

/// Memory for generated code: shared anonymous memory mapped twice, once to be written and once to be executed, so that no
/// address is ever both. The executable mapping lies below 4 GiB, so that a code address fits 32 bits.
///
/// What is complete is settled: moved into private memory of large pages, which the host's address translation covers with
/// far fewer entries. Shared memory doesn't get them on most hosts. What an earlier run made may be mapped of a file. Neither
/// is written again: jumps in there that are led elsewhere later go by way of stubs, which have a part of their own.
///
/// Not a memory file, which would do as well: perf(1) takes code in a file to have its symbols there, and looks into its
/// map of generated code (`PerfMap`) only for anonymous memory.
final class CodeMemory {
  let writable: UnsafeMutablePointer<UInt8>
  let executable: UInt
  /// Size in bytes.
  let count: Int
  /// Where the second half begins, and the stubs behind it.
  var middle: UnsafeMutablePointer<UInt8> { writable + count / 2 }
  var stubs: UnsafeMutablePointer<UInt8> { writable + count / 16 * 15 }
  /// What lies below, as a place in the writable mapping, is settled, and can't be written there any more.
  private var settledEnd: UnsafeMutablePointer<UInt8>
  /// What lies between the second half's begin and here is mapped of a file, and can't be written, either.
  private var shownBehindEnd: UnsafeMutablePointer<UInt8>
  /// The same in the first half, where `settledEnd` is where that ends or higher.
  private var shownEnd: UnsafeMutablePointer<UInt8>

  /// Bytes in large pages, and bytes of a file.
  var settledBytes: Int { settledEnd - shownEnd }
  var shownBytes: Int { (shownEnd - writable) + (shownBehindEnd - middle) }
  private var settles = HostResources.hasLargePages

  /// Throws `HostError` where the host refuses executable memory.
  ///
  /// - Parameters:
  ///   - count: bytes, a multiple of the page size.
  ///   - quietLimit: stretches without new code after which code is settled.
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
    shownEnd = writable
    shownBehindEnd = writable + count / 2
    completeEnd = writable
    populatedEnd = writable
    populatedBehindEnd = writable + count / 2
    self.count = count
  }

  // MARK: code from a file

  /// Where code is in a file, and how many bytes of it. The file has it in large pages, which are mapped as such where the
  /// host's file system keeps them so.
  struct FilePart {
    var offset: Int
    var count: Int
  }

  /// Begins with what a file holds, but for the first page, which stays: whole pages are mapped, the rest is read. The
  /// file mustn't change any more. False where the host doesn't let it: then all is as it was, but for places that hold
  /// nothing yet.
  func show(_ descriptor: Int32, front frontPart: FilePart, behind behindPart: FilePart, stubs stubPart: FilePart)
    -> Bool
  {
    precondition(settledEnd == writable && shownBehindEnd == middle, "only what is new begins with a file")
    let page = MemoryMapping.pageSize
    let front = max(frontPart.count & ~(page - 1), page)
    let behind = behindPart.count & ~(page - 1)
    let stubCount = stubPart.count & ~(Self.stubPiece - 1)
    guard
      Self.read(descriptor, at: frontPart.offset + front, writable + front, writable + frontPart.count),
      Self.read(descriptor, at: behindPart.offset + behind, middle + behind, middle + behindPart.count),
      Self.read(descriptor, at: stubPart.offset + stubCount, stubs + stubCount, stubs + stubPart.count),
      show(descriptor, frontPart.offset + page, writable + page, front - page)
    else { return false }
    shownEnd = writable + front
    settledEnd = shownEnd
    completeEnd = shownEnd
    guard show(descriptor, behindPart.offset, middle, behind) else {
      unsettle()
      return false
    }
    shownBehindEnd = middle + behind
    guard show(descriptor, stubPart.offset, stubs, stubCount) else {
      unsettle()
      return false
    }
    shownStubs = Array(repeating: true, count: stubCount / Self.stubPiece)
    return true
  }

  /// Has the memory be this process's alone, which is a copy of the one that made it: what is shared with that, in so many
  /// bytes from the begin of each part, is copied. Only while nothing but a file's code has been added. Throws `HostError`.
  func becomeIndependent(front: Int, behind: Int, stubs stubCount: Int) throws {
    precondition(settledEnd == shownEnd, "nothing has run")
    let flags = Int32(MAP_SHARED) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)
    guard let own = mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0), own != MAP_FAILED else {
      throw HostError.last("can't map memory for generated code")
    }
    // What isn't of a file, and where in each that ends which is used.
    let firstEnd = shownEnd == writable ? writable : writable + MemoryMapping.pageSize
    typealias Place = UnsafeMutablePointer<UInt8>
    var parts: [(start: Place, end: Place, used: Place)] = [
      (writable, firstEnd, firstEnd), (shownEnd, middle, writable + front),
      (shownBehindEnd, stubs, middle + behind),
      (stubs + shownStubs.count * Self.stubPiece, writable + count, stubs + stubCount),
    ]
    for piece in shownStubs.indices where !shownStubs[piece] {
      let start = stubs + piece * Self.stubPiece
      parts.append((start, start + Self.stubPiece, start + Self.stubPiece))
    }
    for part in parts where part.start < part.used {
      memcpy(own + (part.start - writable), part.start, part.used - part.start)
    }
    guard chost_move_mapping(own, count, writable) != nil else {
      munmap(own, count)
      throw HostError.last("can't map memory for generated code")
    }
    for part in parts { mapAgain(from: part.start, to: part.end) }
  }

  /// Bytes of stubs that become writable together.
  private static let stubPiece = 64 << 10
  /// For each piece of the stubs, from their begin on: whether it is of a file still.
  private var shownStubs: [Bool] = []

  /// Has a stub be one that can be written: what is of a file is copied first.
  private func makeWritable(_ stub: UnsafeMutablePointer<UInt8>) {
    // With the operation before or behind its distance.
    for end in [stub - 1, stub + HostJump.size] {
      let piece = max(0, end - stubs) / Self.stubPiece
      guard piece < shownStubs.count, shownStubs[piece] else { continue }
      let start = stubs + piece * Self.stubPiece
      memcpy(start, executablePlace(of: start), Self.stubPiece)
      mapAgain(from: start, to: start + Self.stubPiece)
      shownStubs[piece] = false
    }
  }

  /// Reads so much of a file. False: there isn't so much, or it can't be read.
  static func read(
    _ descriptor: Int32, at offset: Int, _ start: UnsafeMutableRawPointer, _ end: UnsafeMutableRawPointer
  ) -> Bool {
    var done = 0
    while done < end - start {
      let count = pread(descriptor, start + done, end - start - done, off_t(offset + done))
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return false }
      done += count
    }
    return true
  }

  private func show(_ descriptor: Int32, _ offset: Int, _ location: UnsafeMutablePointer<UInt8>, _ count: Int) -> Bool {
    if count <= 0 { return true }
    let place = executablePlace(of: location)
    let flags = Int32(MAP_PRIVATE) | Int32(MAP_FIXED) | Int32(MAP_NORESERVE)
    return mmap(place, count, PROT_READ | PROT_EXEC, flags, descriptor, off_t(offset)) == place
  }

  /// Whether the place can't be written.
  private func isFixed(_ location: UnsafeMutablePointer<UInt8>) -> Bool {
    location < settledEnd || (location >= middle && location < shownBehindEnd)
  }

  // MARK: pages before they are needed

  /// Bytes that are taken at once, and that are at first: many machines make little code.
  private static let stepAhead = 256 << 10
  private static let firstStep = 16 << 10

  private var stepped = 0
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
    let start = writable + ((cursor - writable) & ~(MemoryMapping.pageSize - 1))
    let step = min(Self.stepAhead, max(Self.firstStep, stepped))
    stepped += step
    end = min(writable + ((cursor - writable) & ~(step - 1)) + step, writable + count)
    madvise(start, end - start, Int32(MADV_POPULATE_WRITE))
    madvise(executablePlace(of: start), end - start, Int32(MADV_POPULATE_READ))
  }

  // MARK: large pages

  static let largePage = 2 << 20

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
    // What began with a file ends anywhere: the rest of its large page stays as it is, and counts as settled.
    let begun = (settledEnd - writable) & (size - 1)
    if begun != 0 {
      settledEnd += size - begun
      return true
    }
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

  /// Leads a complete block's jump, whose distance is at `location`, to `target`. One that can't be written any more keeps
  /// going by way of its stub, which becomes a jump.
  func lead(_ location: UnsafeMutablePointer<UInt8>, to target: UInt) {
    let place = executablePlace(of: location)
    // A stub's own jump.
    if location >= stubs { makeWritable(location) }
    guard isFixed(location) else {
      UnsafeMutableRawPointer(location).storeBytes(of: HostJump.distance(at: place, to: target), as: Int32.self)
      return
    }
    let way = HostJump.target(at: place)
    let stub = UnsafeMutablePointer<UInt8>(bitPattern: Int(bitPattern: way) &- executableOffset)!
    precondition(
      stub >= stubs && stub <= writable + count - 2 * HostJump.size, "what is led elsewhere goes by way of a stub")
    makeWritable(stub)
    HostJump.write(stub, at: UnsafeRawPointer(bitPattern: way)!, to: target)
  }

  /// To be called once a stretch.
  @inline(__always)
  func noteStretch() {
    if settledEnd < completeEnd {
      stretchesSinceComplete += 1
      if stretchesSinceComplete == quietLimit {
        settle()
        stretchesSinceComplete -= Self.settleInterval
      }
    }
  }

  /// After so many without new code, what is complete is settled.
  private let quietLimit: Int

  /// Lets all of it be written again. What the first large page held is as before, the rest as nobody knows.
  func unsettle() {
    completeEnd = writable
    populatedEnd = writable
    populatedBehindEnd = middle
    mapAgain(from: writable, to: settledEnd)
    settledEnd = writable
    shownEnd = writable
    mapAgain(from: middle, to: shownBehindEnd)
    shownBehindEnd = middle
    mapAgain(from: stubs, to: stubs + shownStubs.count * Self.stubPiece)
    shownStubs = []
  }

  private func mapAgain(from start: UnsafeMutablePointer<UInt8>, to end: UnsafeMutablePointer<UInt8>) {
    if start == end { return }
    let size = end - start
    let place = executablePlace(of: start)
    precondition(
      chost_map_again(start, size, place) != nil && mprotect(place, size, PROT_READ | PROT_EXEC) == 0,
      "the host has no memory for generated code any more")
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
    munmap(writable, count)
    munmap(UnsafeMutableRawPointer(bitPattern: executable), count)
  }
}
