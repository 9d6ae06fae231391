import Bus
import Foundation
import Testing

private final class Counter: StateKeeper {
  struct State: Codable { var value: Int }
  static let stateVersion = 2
  let stateIdentifier: String
  var value = 0
  init(_ identifier: String) { stateIdentifier = identifier }
  func saveState() throws -> State { State(value: value) }
  func restoreState(_ state: State) throws { value = state.value }
}

struct SavedStateTests {
  private func message(_ body: () throws -> Void) -> String? {
    do { try body() } catch { return (error as? StateError)?.message ?? "another error: \(error)" }
    return nil
  }

  @Test func comesBackWhole() throws {
    let (one, other) = (Counter("counter0"), Counter("counter0"))
    one.value = 42
    let encoded = try one.encodedState()
    #expect(encoded.identifier == "counter0" && encoded.version == 2)
    let stored = try JSONEncoder().encode(encoded)
    try other.restoreEncodedState(JSONDecoder().decode(EncodedState.self, from: stored))
    #expect(other.value == 42)
  }

  @Test func whatIsDecodedIsRestoredLater() throws {
    let (one, other) = (Counter("counter0"), Counter("counter0"))
    one.value = 42
    let encoded = try one.encodedState()
    let restore = try other.decodedRestore(encoded)
    one.value = 43
    #expect(other.value == 0)
    try restore()
    #expect(other.value == 42)
    // What doesn't fit is refused before.
    let damaged = EncodedState(identifier: "counter0", version: 2, payload: Data("{}".utf8))
    #expect(message { _ = try other.decodedRestore(damaged) } == "the saved state of 'counter0' is damaged")
    let old = EncodedState(identifier: "counter0", version: 1, payload: encoded.payload)
    #expect(message { _ = try other.decodedRestore(old) }?.contains("has version 1") == true)
    #expect(other.value == 42)
  }

  @Test func othersOldAndDamagedStatesAreRefused() throws {
    let counter = Counter("counter0")
    counter.value = 7
    let payload = try counter.encodedState().payload
    func offer(_ identifier: String, _ version: Int, _ payload: Data) -> String? {
      message {
        try counter.restoreEncodedState(EncodedState(identifier: identifier, version: version, payload: payload))
      }
    }
    #expect(offer("counter1", 2, payload) == "the saved state of 'counter1' was offered to 'counter0'")
    #expect(offer("counter0", 1, payload) == "the saved state of 'counter0' has version 1; this program reads 2")
    #expect(offer("counter0", 2, Data("{}".utf8)) == "the saved state of 'counter0' is damaged")
    #expect(offer("counter0", 2, Data([0xFF])) == "the saved state of 'counter0' is damaged")
    #expect(offer("counter0", 2, Data()) == "the saved state of 'counter0' is damaged")
    #expect(counter.value == 7)
    #expect(offer("counter0", 2, payload) == nil)
  }

  @Test func theClockGoesOnFromWhereItWasSet() {
    let clock = GuestClock(start: 1000)
    let first = clock.ticks()
    #expect(first >= 1000)
    #expect(clock.ticks() >= first)
    clock.set(5)
    // A minute of ticks at most: this ran just now.
    #expect((5..<5 + 60 * GuestClock.frequency).contains(clock.ticks()))
    clock.set(.max)
    #expect(clock.ticks() == .max || clock.ticks() < 60 * GuestClock.frequency)
  }
}
