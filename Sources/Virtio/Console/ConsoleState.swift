import Bus

extension VirtioConsole {
  /// What the driver knows of the ports. Input that the guest hasn't taken stays with the backends.
  public struct State: Codable {
    struct PortState: Codable {
      var isReady: Bool
      var isOpenInGuest: Bool
      var toldSize: Size?
    }
    var ports: [PortState]
    var pendingControl: [[UInt8]]
    /// The size in the configuration space.
    var size: Size
  }
  public static let stateVersion = 1

  public func saveState() -> State {
    State(
      ports: ports.map { .init(isReady: $0.isReady, isOpenInGuest: $0.isOpenInGuest, toldSize: $0.toldSize) },
      pendingControl: pendingControl,
      size: Size(
        columns: UInt16(configuration.read(offset: UInt64(Field.columns), width: 2)),
        rows: UInt16(configuration.read(offset: UInt64(Field.rows), width: 2))))
  }

  public func restoreState(_ state: State) throws {
    guard state.ports.count == ports.count else {
      throw StateError("the saved machine's console has \(state.ports.count) ports, this one \(ports.count)")
    }
    for (index, port) in state.ports.enumerated() {
      ports[index].isReady = port.isReady
      ports[index].isOpenInGuest = port.isOpenInGuest
      ports[index].toldSize = port.toldSize
    }
    pendingControl = state.pendingControl
    // A terminal of another size makes this a change, which the driver is told when it goes on.
    configuration.set(state.size.columns, at: Field.columns)
    configuration.set(state.size.rows, at: Field.rows)
  }
}
