extension VirtioInput {
  /// What the guest hasn't taken, and what it has selected.
  public struct State: Codable {
    var pending: [Event]
    var selection: [UInt8]
  }
  public static let stateVersion = 1

  public func saveState() -> State {
    State(
      pending: pending,
      selection: (0..<2).map { UInt8(truncatingIfNeeded: configuration.read(offset: $0, width: 1)) })
  }

  public func restoreState(_ state: State) {
    pending = state.pending
    for (offset, value) in state.selection.prefix(2).enumerated() {
      configurationWritten(offset: UInt64(offset), width: 1, value: UInt64(value))
    }
  }
}
