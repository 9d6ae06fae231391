import Bus

extension VirtioNet {
  /// What the driver set; frames under way in the backend are lost, as they may be on any network.
  public struct State: Codable {
    var filter: ReceiveFilter
    var activePairs: Int
    var linkIsUp: Bool
  }
  public static let stateVersion = 2

  public func saveState() -> State {
    State(
      filter: filter, activePairs: activePairs,
      linkIsUp: configuration.read(offset: UInt64(Field.status), width: 2) & 1 != 0)
  }

  public func restoreState(_ state: State) throws {
    guard (1...queuePairs).contains(state.activePairs) else {
      throw StateError("the saved machine's network card used \(state.activePairs) queue pairs, this has \(queuePairs)")
    }
    // A card with another address of its own (a clone's) goes on with the one that its driver knows, till that is told.
    filter = state.filter
    activePairs = state.activePairs
    configuration.set(UInt16(state.linkIsUp ? 1 : 0), at: Field.status)
    showAddress()
  }
}
