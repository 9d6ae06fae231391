import Foundation

/// Why a saved state can't be taken back.
public struct StateError: Error, CustomStringConvertible {
  public let message: String
  public init(_ message: String) { self.message = message }
  public var description: String { message }
}

/// One component's state as it stands in a saved machine: who it belongs to, in which version, as JSON.
public struct EncodedState: Codable {
  public let identifier: String
  public let version: Int
  public let payload: Data

  public init(identifier: String, version: Int, payload: Data) {
    self.identifier = identifier
    self.version = version
    self.payload = payload
  }
}

/// A hart or a device whose state is a plain, versioned value, separate from the object that runs.
///
/// `saveState` and `restoreState` are called only while no hart runs and the I/O thread is idle or is the caller.
public protocol StateKeeper: AnyObject {
  associatedtype State: Codable
  /// The version of `State` that this program writes. Raised at each incompatible change.
  static var stateVersion: Int { get }
  /// Unique in its machine and the same in every run: "hart0", "plic", "virtio-mmio3".
  var stateIdentifier: String { get }
  func saveState() throws -> State
  func restoreState(_ state: State) throws
}

extension StateKeeper {
  public func encodedState() throws -> EncodedState {
    EncodedState(
      identifier: stateIdentifier, version: Self.stateVersion, payload: try JSONEncoder().encode(saveState()))
  }

  /// Throws `StateError` when the state is another component's, another version's or damaged.
  public func restoreEncodedState(_ encoded: EncodedState) throws { try decodedRestore(encoded)() }

  /// What restores the state, which is decoded by then. Throws the same.
  public func decodedRestore(_ encoded: EncodedState) throws -> () throws -> Void {
    guard encoded.identifier == stateIdentifier else {
      throw StateError("the saved state of '\(encoded.identifier)' was offered to '\(stateIdentifier)'")
    }
    guard encoded.version == Self.stateVersion else {
      throw StateError(
        "the saved state of '\(stateIdentifier)' has version \(encoded.version); this program reads \(Self.stateVersion)"
      )
    }
    let state: State
    do {
      state = try JSONDecoder().decode(State.self, from: encoded.payload)
    } catch {
      throw StateError("the saved state of '\(stateIdentifier)' is damaged")
    }
    return { try self.restoreState(state) }
  }
}
