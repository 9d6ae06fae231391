import CHost
import Foundation
import HostSystem

/// A flash bank's contents in a file, locked while it is open. A file opened for writing takes every change at once, in
/// place, at the offset it has in the bank.
public final class FlashFile: Sendable {
  private let descriptor: Int32
  public let image: BoardConfiguration.FlashImage

  /// Opens the file at `path`, of at most 32 MiB. Throws `HostError` when it can't be opened or somebody else has it
  /// open, `BootError` when it is too large.
  public init(path: String, isReadOnly: Bool) throws {
    let descriptor = chost_open(path, isReadOnly ? O_RDONLY : O_RDWR, 0)
    guard descriptor >= 0 else { throw HostError.last("can't open the flash image '\(path)'") }
    do {
      guard chost_lock_file(descriptor, isReadOnly ? 0 : 1) == 0 else {
        throw HostError(
          code: errno, message: "the flash image '\(path)' is in use by another machine; stop it or copy the file")
      }
      let contents = try FileHandle(fileDescriptor: descriptor, closeOnDealloc: false).readToEnd() ?? Data()
      guard contents.count <= CFIFlash.byteCount else {
        throw BootError(
          .configuration, "\(path): \(contents.count) bytes; a flash image has at most \(CFIFlash.byteCount)")
      }
      var store: CFIFlash.Store?
      if !isReadOnly {
        let size = UInt64(contents.count)
        store = { offset, bytes in FlashFile.store(bytes, at: offset, in: descriptor, size: size) }
      }
      image = BoardConfiguration.FlashImage(contents: contents, isReadOnly: isReadOnly, store: store)
      self.descriptor = descriptor
    } catch {
      close(descriptor)
      throw error
    }
  }

  deinit { close(descriptor) }

  /// The file keeps its size: what lies beyond it can't be stored.
  private static func store(_ bytes: [UInt8], at offset: UInt64, in descriptor: Int32, size: UInt64) -> Bool {
    guard offset < size else { return false }
    let count = min(bytes.count, Int(size - offset))
    return bytes.withUnsafeBytes { bytes in
      var done = 0
      while done < count {
        let written = pwrite(descriptor, bytes.baseAddress! + done, count - done, off_t(offset) + off_t(done))
        if written < 0, errno == EINTR { continue }
        guard written > 0 else { return false }
        done += written
      }
      return true
    }
  }
}
