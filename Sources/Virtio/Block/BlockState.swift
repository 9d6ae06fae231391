import Bus

extension VirtioBlock {
  /// Requests are finished within one turn of the I/O thread, so none is ever under way in a saved state; those that
  /// wait are in the guest's rings.
  public struct State: Codable {
    var writeBack: Bool
    /// In bytes. A driver that went on with a disk of another size would harm its data.
    var capacity: UInt64
    var isReadOnly: Bool
  }
  public static let stateVersion = 1

  public func saveState() -> State {
    State(writeBack: writeBack.load(ordering: .relaxed), capacity: storage.byteCount, isReadOnly: isReadOnly)
  }

  public func restoreState(_ state: State) throws {
    guard state.capacity == storage.byteCount else {
      throw StateError(
        "the saved machine had a disk of \(state.capacity) bytes here, this one has \(storage.byteCount); "
          + "give it the disk image that belongs to the saved state")
    }
    guard state.isReadOnly == isReadOnly else {
      throw StateError(
        "the saved machine had a \(state.isReadOnly ? "read-only" : "writable") disk here, this one isn't; "
          + "open the disk image as it was")
    }
    setWriteBack(state.writeBack)
  }
}
