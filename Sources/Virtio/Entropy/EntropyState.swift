extension VirtioEntropy {
  /// The device keeps nothing between requests.
  public struct State: Codable {}
  public static let stateVersion = 1
  public func saveState() -> State { State() }
  public func restoreState(_ state: State) {}
}
