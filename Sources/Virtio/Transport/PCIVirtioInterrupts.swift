import Bus
import Synchronization

/// A PCI function's two ways to interrupt: MSI-X, where the driver enabled it, else the INTx wire with the ISR status
/// (virtio 1.2, 4.1.4.5 and 4.1.5.1.2).
final class PCIVirtioInterrupts: VirtioInterrupts, @unchecked Sendable {
  static let noVector: UInt16 = 0xffff

  struct Vectors: Codable, Equatable {
    var configuration = PCIVirtioInterrupts.noVector
    var queues: [UInt16]
  }

  let level: LevelInterrupt
  let table: MessageInterruptTable
  private let vectors: Mutex<Vectors>

  init(queueCount: Int, line: InterruptLine, messages: @escaping MessageInterruptSender) {
    level = LevelInterrupt(line: line)
    // One vector for each queue and one for the configuration.
    table = MessageInterruptTable(count: queueCount + 1, send: messages)
    vectors = Mutex(Vectors(queues: Array(repeating: Self.noVector, count: queueCount)))
  }

  func usedBuffers(queue: Int) {
    guard table.isEnabled else { return level.raise(LevelInterrupt.usedBuffers) }
    let vector = vectors.withLock { $0.queues[queue] }
    if vector != Self.noVector { table.raise(Int(vector)) }
  }

  func configurationChanged() {
    guard table.isEnabled else { return level.raise(LevelInterrupt.configuration) }
    let vector = vectors.withLock { $0.configuration }
    if vector != Self.noVector { table.raise(Int(vector)) }
  }

  /// A device reset leaves the MSI-X table alone, which belongs to the function; but messages that wait there would
  /// tell of a device that is no more (virtio 1.2, 2.4.1).
  func reset() {
    vectors.withLock { vectors in
      vectors = Vectors(queues: Array(repeating: Self.noVector, count: vectors.queues.count))
    }
    table.clearPending()
    level.acknowledge(.max)
  }

  func setMessageControl(_ value: UInt16) {
    table.setControl(value)
    level.setMasked(table.isEnabled)
  }

  var configurationVector: UInt16 {
    get { vectors.withLock { $0.configuration } }
    // A vector that doesn't exist reads back as none (4.1.5.1.2).
    set { vectors.withLock { $0.configuration = existing(newValue) } }
  }

  func queueVector(_ queue: Int) -> UInt16 {
    vectors.withLock { queue < $0.queues.count ? $0.queues[queue] : Self.noVector }
  }

  func setQueueVector(_ queue: Int, _ vector: UInt16) {
    vectors.withLock { if queue < $0.queues.count { $0.queues[queue] = existing(vector) } }
  }

  private func existing(_ vector: UInt16) -> UInt16 { Int(vector) < table.count ? vector : Self.noVector }

  // MARK: Saved state

  struct State: Codable {
    var status: UInt32
    var vectors: Vectors
    var messages: MessageInterruptTable.Contents
  }

  var saved: State {
    State(status: level.status, vectors: vectors.withLock { $0 }, messages: table.saved)
  }

  /// False, and nothing changed, when it is of a function with other vectors.
  func restore(_ state: State) -> Bool {
    let isValid = vectors.withLock { vectors in
      guard state.vectors.queues.count == vectors.queues.count, table.restore(state.messages) else { return false }
      vectors = Vectors(
        configuration: existing(state.vectors.configuration), queues: state.vectors.queues.map(existing))
      return true
    }
    if isValid { level.restore(status: state.status, masked: table.isEnabled) }
    return isValid
  }
}
