import Foundation
import HostSystem
import Testing

@Suite struct SparseCopyTests {
  private let place = TemporaryFolder()

  private func file(_ name: String) -> Int32 { open(place.path + "/" + name, O_RDWR | O_CREAT, 0o600) }

  /// Ten megabytes with something here and there.
  private var sample: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 10 << 20 | 100)
    for place in [0, 5000, 3 << 20, (6 << 20) - 1, 10 << 20 | 99] { bytes[place] = UInt8(place % 251 + 1) }
    return bytes
  }

  @Test func whatIsZeroTakesNoRoom() throws {
    let bytes = sample
    let written = file("written")
    let checksums = try bytes.withUnsafeBytes { try SparseCopy.write($0, to: written) }
    #expect(checksums.map { $0 != 0 } == [true, true, true, false, false, true])
    #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: place.path + "/written"))) == bytes)
    var status = stat()
    fstat(written, &status)
    #expect(status.st_blocks * 512 < 256 << 10)
    let copied = file("copied")
    #expect(try SparseCopy.copy(written, to: copied) == checksums)
    #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: place.path + "/copied"))) == bytes)
    #expect(try SparseCopy.agrees(copied, count: bytes.count, checksums))
  }

  /// The checksum is CRC-32C, whose value for 32 zeroes but for the last is in RFC 3720, B.4, among others.
  @Test func checksums() throws {
    let ascending = (0..<32).map { UInt8($0) }
    let checksum = try ascending.withUnsafeBytes { try SparseCopy.write($0, to: file("ascending")) }
    #expect(checksum == [0x46DD_794E])
  }

  @Test func damageIsFound() throws {
    let bytes = sample
    let written = file("written")
    let checksums = try bytes.withUnsafeBytes { try SparseCopy.write($0, to: written) }
    for place in [0, 1, 4 << 20, 7 << 20, bytes.count - 1] {
      var byte = bytes[place] ^ 4
      #expect(pwrite(written, &byte, 1, place) == 1)
      #expect(try !SparseCopy.agrees(written, count: bytes.count, checksums), "byte \(place)")
      byte ^= 4
      #expect(pwrite(written, &byte, 1, place) == 1)
      #expect(try SparseCopy.agrees(written, count: bytes.count, checksums))
    }
    #expect(try !SparseCopy.agrees(written, count: bytes.count, Array(checksums.dropLast())))
    ftruncate(written, off_t(bytes.count - 1))
    #expect(try !SparseCopy.agrees(written, count: bytes.count, checksums))
  }
}
