import Bus

extension VirtioNet {
  /// What the driver set; frames under way in the backend are lost, as they may be on any network.
  public struct State: Codable {
    var filter: ReceiveFilter
    var activePairs: Int
    /// The card's own address, which the driver read at its start.
    var hardwareAddress: MACAddress
    var linkIsUp: Bool
  }
  public static let stateVersion = 1

  public func saveState() -> State {
    State(
      filter: filter, activePairs: activePairs, hardwareAddress: hardwareAddress,
      linkIsUp: configuration.read(offset: UInt64(Field.status), width: 2) & 1 != 0)
  }

  public func restoreState(_ state: State) throws {
    guard state.hardwareAddress == hardwareAddress else {
      throw StateError(
        "the saved machine's network card has the address \(state.hardwareAddress), this one \(hardwareAddress)")
    }
    guard (1...queuePairs).contains(state.activePairs) else {
      throw StateError("the saved machine's network card used \(state.activePairs) queue pairs, this has \(queuePairs)")
    }
    filter = state.filter
    activePairs = state.activePairs
    configuration.set(UInt16(state.linkIsUp ? 1 : 0), at: Field.status)
    showAddress()
  }
}
