import Bus
import Synchronization

/// The platform-level interrupt controller (RISC-V PLIC Specification 1.0.0): 96 level-triggered sources, and one
/// context for each interrupt input of a hart.
///
/// A source that is high and not being served becomes pending, and stays so until a context claims it, even when the
/// device lets go earlier. While claimed it can't become pending; at completion its level is looked at again.
public final class PLIC: BusDevice, StateKeeper, @unchecked Sendable {
  /// Sources are numbered 1 to `sourceCount`; 0 means none.
  public static let sourceCount = 96
  /// Priorities run from 0 (never) to `highestPriority`.
  public static let highestPriority: UInt32 = 7
  /// Contexts that fit in the register window.
  public static let maximumContextCount = 1024

  /// A set of source numbers.
  struct SourceSet: Codable, Equatable {
    var words: [UInt32] = [0, 0, 0, 0]

    subscript(source: Int) -> Bool {
      get { words[source / 32] >> UInt32(source % 32) & 1 != 0 }
      set {
        let bit = UInt32(1) << UInt32(source % 32)
        if newValue { words[source / 32] |= bit } else { words[source / 32] &= ~bit }
      }
    }
  }

  struct Context: Codable {
    var enabled = SourceSet()
    var threshold: UInt32 = 0
    /// What the output wire stands at.
    var output = false
  }

  /// The controller's registers and the levels of its wires.
  public struct State: Codable {
    var priorities = [UInt32](repeating: 0, count: PLIC.sourceCount + 1)
    var levels = SourceSet()
    var pending = SourceSet()
    var claimed = SourceSet()
    var contexts: [Context]
  }

  public static let stateVersion = 1
  public let stateIdentifier = "plic"

  private let outputs: [InterruptLine]
  private let state: Mutex<State>
  private let claimHandlers = Mutex<[Int: @Sendable () -> Void]>([:])

  /// `outputs`: the wire that each context drives, in the order of contexts.
  public init(outputs: [InterruptLine]) {
    precondition(outputs.count <= PLIC.maximumContextCount)
    self.outputs = outputs
    state = Mutex(State(contexts: Array(repeating: Context(), count: outputs.count)))
  }

  /// The wire of source `source` (1 to 96), for one device alone. `claimed` is called after each claim of it, with no
  /// lock held.
  public func line(_ source: Int, claimed: (@Sendable () -> Void)? = nil) -> InterruptLine {
    precondition((1...PLIC.sourceCount).contains(source))
    if let claimed { claimHandlers.withLock { $0[source] = claimed } }
    return InterruptLine { [unowned self] level in setLevel(source, level) }
  }

  private func setLevel(_ source: Int, _ level: Bool) {
    state.withLock { state in
      guard state.levels[source] != level else { return }
      state.levels[source] = level
      guard level, !state.claimed[source], !state.pending[source] else { return }
      state.pending[source] = true
      update(&state)
    }
  }

  // MARK: registers

  private static let pendingBase: UInt64 = 0x1000
  private static let enableBase: UInt64 = 0x2000
  private static let enableStride: UInt64 = 0x80
  private static let contextBase: UInt64 = 0x20_0000
  private static let contextStride: UInt64 = 0x1000

  private enum Register {
    case priority(Int)
    case pending(word: Int)
    case enable(context: Int, word: Int)
    case threshold(context: Int)
    case claim(context: Int)
  }

  private func register(at offset: UInt64) -> Register? {
    switch offset {
    case 0..<PLIC.pendingBase:
      let source = Int(offset / 4)
      return (1...PLIC.sourceCount).contains(source) ? .priority(source) : nil
    case PLIC.pendingBase..<PLIC.enableBase:
      let word = Int((offset - PLIC.pendingBase) / 4)
      return word < 4 ? .pending(word: word) : nil
    case PLIC.enableBase..<PLIC.contextBase:
      let context = Int((offset - PLIC.enableBase) / PLIC.enableStride)
      let word = Int((offset - PLIC.enableBase) % PLIC.enableStride / 4)
      return context < outputs.count && word < 4 ? .enable(context: context, word: word) : nil
    default:
      let context = Int((offset - PLIC.contextBase) / PLIC.contextStride)
      guard context < outputs.count else { return nil }
      switch (offset - PLIC.contextBase) % PLIC.contextStride {
      case 0: return .threshold(context: context)
      case 4: return .claim(context: context)
      default: return nil
      }
    }
  }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4, offset % 4 == 0, let register = register(at: offset) else { return 0 }
    let value = read(register)
    if case .claim = register, value != 0 { claimHandlers.withLock { $0[Int(value)] }?() }
    return value
  }

  private func read(_ register: Register) -> UInt64 {
    state.withLock { state in
      switch register {
      case .priority(let source): return UInt64(state.priorities[source])
      case .pending(let word): return UInt64(state.pending.words[word])
      case .enable(let context, let word): return UInt64(state.contexts[context].enabled.words[word])
      case .threshold(let context): return UInt64(state.contexts[context].threshold)
      case .claim(let context): return UInt64(claim(&state, context))
      }
    }
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    guard width == 4, offset % 4 == 0, let register = register(at: offset) else { return }
    let value = UInt32(truncatingIfNeeded: value)
    state.withLock { state in
      switch register {
      case .priority(let source): state.priorities[source] = value & PLIC.highestPriority
      case .pending: return
      case .enable(let context, let word):
        // Source 0 doesn't exist, nor does anything above the last one.
        let existing: UInt32 = word == 0 ? ~1 : word == 3 ? 1 : ~0
        state.contexts[context].enabled.words[word] = value & existing
      case .threshold(let context): state.contexts[context].threshold = value & PLIC.highestPriority
      case .claim(let context): complete(&state, context, source: value)
      }
      update(&state)
    }
  }

  /// The pending source that `context` would be given: highest priority, then lowest number; 0 for none.
  private func best(_ state: State, _ context: Int) -> (source: Int, priority: UInt32) {
    var best = (source: 0, priority: UInt32(0))
    for word in 0..<4 {
      var candidates = state.pending.words[word] & state.contexts[context].enabled.words[word]
      while candidates != 0 {
        let source = word * 32 + candidates.trailingZeroBitCount
        candidates &= candidates &- 1
        if state.priorities[source] > best.priority { best = (source, state.priorities[source]) }
      }
    }
    return best
  }

  /// Claims don't look at the threshold (PLIC 1.0.0, 9).
  private func claim(_ state: inout State, _ context: Int) -> Int {
    let source = best(state, context).source
    guard source != 0 else { return 0 }
    state.pending[source] = false
    state.claimed[source] = true
    update(&state)
    return source
  }

  /// A completion for a source that isn't enabled for the context is ignored (PLIC 1.0.0, 10).
  private func complete(_ state: inout State, _ context: Int, source: UInt32) {
    guard source >= 1, source <= UInt32(PLIC.sourceCount) else { return }
    let source = Int(source)
    guard state.contexts[context].enabled[source], state.claimed[source] else { return }
    state.claimed[source] = false
    if state.levels[source] { state.pending[source] = true }
  }

  private func update(_ state: inout State) {
    for context in outputs.indices {
      let output = best(state, context).priority > state.contexts[context].threshold
      guard output != state.contexts[context].output else { continue }
      state.contexts[context].output = output
      outputs[context].set(output)
    }
  }

  /// As at power-on, except that devices' wires stay as they stand.
  public func reset() {
    state.withLock { state in
      let levels = state.levels
      for context in outputs.indices where state.contexts[context].output { outputs[context].set(false) }
      state = State(contexts: Array(repeating: Context(), count: outputs.count))
      state.levels = levels
      state.pending = levels
    }
  }

  public func saveState() -> State { state.withLock { $0 } }

  public func restoreState(_ saved: State) throws {
    let sets = [saved.levels, saved.pending, saved.claimed] + saved.contexts.map(\.enabled)
    guard saved.contexts.count == outputs.count, saved.priorities.count == PLIC.sourceCount + 1,
      sets.allSatisfy({ $0.words.count == 4 })
    else { throw StateError("the saved interrupt controller is of another board") }
    state.withLock { state in
      state = saved
      for context in outputs.indices { outputs[context].set(saved.contexts[context].output) }
    }
  }
}
