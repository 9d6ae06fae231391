import Bus
import Synchronization

/// MSI-X: a table of messages and the bits of those that wait (PCI 3.0, 6.8.2). Any thread; messages are sent with no
/// lock held.
final class MessageInterruptTable: @unchecked Sendable {
  struct Entry: Codable, Equatable {
    var address: UInt64 = 0
    var data: UInt32 = 0
    /// Vector control; bit 0 masks. Masked after reset.
    var control: UInt32 = 1
  }

  struct Contents: Codable, Equatable {
    var entries: [Entry]
    var isEnabled = false
    var isMasked = false
    /// Without it a function sends nothing (PCI 3.0, 6.2.2).
    var isBusMaster = false
    /// One bit for each vector that has a message to send.
    var pending: [UInt64]
  }

  private struct Message {
    let address: PhysicalAddress
    let data: UInt32
  }

  static let entrySize: UInt64 = 16

  let count: Int
  private let send: MessageInterruptSender
  private let contents: Mutex<Contents>

  init(count: Int, send: @escaping MessageInterruptSender) {
    self.count = count
    self.send = send
    contents = Mutex(
      Contents(
        entries: Array(repeating: Entry(), count: count), pending: Array(repeating: 0, count: (count + 63) / 64)))
  }

  var isEnabled: Bool { contents.withLock { $0.isEnabled } }

  /// The message control word: table size, function mask, enable.
  var control: UInt16 {
    contents.withLock { UInt16(count - 1) | ($0.isMasked ? 1 << 14 : 0) | ($0.isEnabled ? 1 << 15 : 0) }
  }

  func setControl(_ value: UInt16) {
    change {
      $0.isMasked = value & 1 << 14 != 0
      $0.isEnabled = value & 1 << 15 != 0
    }
  }

  func setBusMaster(_ enabled: Bool) { change { $0.isBusMaster = enabled } }

  /// Sends a vector's message, now or when it may be sent.
  func raise(_ vector: Int) {
    guard vector < count else { return }
    change { $0.pending[vector / 64] |= 1 << UInt64(vector % 64) }
  }

  /// Forgets what waits to be sent.
  func clearPending() {
    contents.withLock { contents in
      for word in contents.pending.indices { contents.pending[word] = 0 }
    }
  }

  /// Changes something, then sends what waits and may be sent now.
  private func change(_ body: (inout Contents) -> Void) {
    let messages: [Message] = contents.withLock { contents in
      body(&contents)
      guard contents.isEnabled, !contents.isMasked, contents.isBusMaster else { return [] }
      var messages: [Message] = []
      for word in contents.pending.indices where contents.pending[word] != 0 {
        for vector in word * 64..<min(count, word * 64 + 64) {
          let bit: UInt64 = 1 << UInt64(vector % 64)
          let entry = contents.entries[vector]
          guard contents.pending[word] & bit != 0, entry.control & 1 == 0 else { continue }
          contents.pending[word] &= ~bit
          messages.append(Message(address: PhysicalAddress(entry.address), data: entry.data))
        }
      }
      return messages
    }
    for message in messages { send(message.address, message.data) }
  }

  // MARK: The table and the pending bits as memory. Accesses are aligned, of 4 or 8 bytes.

  func readTable(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return 0 }
    if width == 8 {
      return readTable(offset: offset, width: 4) | readTable(offset: offset + 4, width: 4) << 32
    }
    guard offset < UInt64(count) * Self.entrySize else { return 0 }
    return contents.withLock { contents in
      let entry = contents.entries[Int(offset / Self.entrySize)]
      switch offset % Self.entrySize {
      case 0: return entry.address & 0xffff_ffff
      case 4: return entry.address >> 32
      case 8: return UInt64(entry.data)
      default: return UInt64(entry.control)
      }
    }
  }

  func writeTable(offset: UInt64, width: Int, value: UInt64) {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return }
    if width == 8 {
      writeTable(offset: offset, width: 4, value: value & 0xffff_ffff)
      return writeTable(offset: offset + 4, width: 4, value: value >> 32)
    }
    guard offset < UInt64(count) * Self.entrySize else { return }
    let word = value & 0xffff_ffff
    change { contents in
      let index = Int(offset / Self.entrySize)
      switch offset % Self.entrySize {
      // Messages go to whole words: the two lowest bits are zero.
      case 0: contents.entries[index].address = contents.entries[index].address & ~0xffff_ffff | word & ~3
      case 4: contents.entries[index].address = contents.entries[index].address & 0xffff_ffff | word << 32
      case 8: contents.entries[index].data = UInt32(word)
      default: contents.entries[index].control = UInt32(word & 1)
      }
    }
  }

  func readPending(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return 0 }
    return contents.withLock { contents in
      guard offset / 8 < UInt64(contents.pending.count) else { return 0 }
      let word = contents.pending[Int(offset / 8)]
      return width == 8 ? word : (word >> (offset % 8 * 8)) & 0xffff_ffff
    }
  }

  // MARK: Saved state

  var saved: Contents { contents.withLock { $0 } }

  /// False, and nothing changed, when the table has another size.
  func restore(_ saved: Contents) -> Bool {
    contents.withLock { contents in
      guard saved.entries.count == count, saved.pending.count == contents.pending.count else { return false }
      contents = saved
      return true
    }
  }
}
