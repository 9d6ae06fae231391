import Hart
import HostSystem

/// Runs the interpreter and a translator in lock step. For each stretch of some thousand instructions the interpreter
/// goes first, on trial (see `Rehearsal`); then the translator executes as many, for good, and registers, CSRs and the
/// pages that the interpreter changed are compared. What can't be executed twice (device registers, the clock, SBI
/// calls, fences) ends a stretch, and the interpreter alone executes it.
///
/// Nobody else may change RAM during a stretch: there is one hart, and the I/O thread takes turns with it.
///
/// A difference counts when it shows again after all remembered translations are forgotten. A guest that changes a page
/// table and doesn't fence may see either translation, and each engine one of them.
package final class AuditEngine: ExecutionEngine {
  /// The hart holds its engine.
  unowned(unsafe) private let hart: Hart
  private let translator: Translator
  private let turns: TurnLock
  private let ledger = BlockLedger()
  private let rehearsal: Rehearsal
  /// The state at the beginning of the stretch, and as the interpreter left it.
  private let before: UnsafeMutablePointer<HartState>
  private let expected: UnsafeMutablePointer<HartState>

  /// What the engines disagreed on; nil: nothing so far. The interpreter goes on alone then.
  package private(set) var difference: String?
  /// How many differences didn't show again.
  package private(set) var unconfirmedCount = 0
  /// How many instructions, traps included, both engines have executed.
  package private(set) var auditedCount: UInt64 = 0
  /// Changes the state that the translator has left, for tests of the audit itself.
  package var fault: ((UnsafeMutablePointer<HartState>) -> Void)?

  /// Instructions in a stretch at most.
  private static let longestStretch = 4096

  /// An engine for `hart`, whose `translator` is audited; the caller sets it as the hart's engine. `turns` keeps the I/O
  /// thread from changing RAM.
  package init(_ hart: Hart, auditing translator: Translator, turns: TurnLock) {
    self.hart = hart
    self.translator = translator
    self.turns = turns
    rehearsal = Rehearsal(hart.memory)
    before = .allocate(capacity: 1)
    expected = .allocate(capacity: 1)
    translator.ledger = ledger
  }

  deinit {
    before.deallocate()
    expected.deallocate()
  }

  package func forget(_ page: UnsafeMutablePointer<CodePage>) { translator.forget(page) }

  package func execute(_ budget: Int, exactly: Bool) {
    var remaining = budget
    while remaining > 0 {
      if difference != nil {
        hart.interpret(remaining)
        return
      }
      let steps = audit(min(remaining, Self.longestStretch))
      remaining -= max(1, steps)
      if hart.hasReasonToLeave { return }
      if difference == nil, rehearsal.hasMetUnrepeatable || steps == 0 {
        hart.interpret(1)
        remaining -= 1
        if hart.hasReasonToLeave { return }
      }
    }
  }

  /// Instructions retired and traps taken so far: what both engines count.
  private var stepCount: UInt64 { hart.state.pointee.retired &+ hart.trapCount }

  /// Executes at most `count` instructions with both. Returns how many it were.
  private func audit(_ count: Int) -> Int {
    turns.lock()
    defer { turns.unlock() }
    before.update(from: hart.state, count: 1)
    let steps = rehearse(count)
    guard steps > 0 else { return 0 }
    let mustInterpret = rehearsal.hasMetUnrepeatable
    if !perform(steps) {
      undo()
      if agree(steps) {
        unconfirmedCount += 1
        rehearsal.hasMetUnrepeatable = mustInterpret
      } else {
        undo()
        report(steps)
      }
    }
    auditedCount &+= UInt64(steps)
    return steps
  }

  /// Has the interpreter execute at most `count` instructions on trial, and returns how many it were.
  private func rehearse(_ count: Int) -> Int {
    let start = stepCount
    hart.rehearse(count, rehearsal, outcome: expected)
    let steps = stepCount &- start
    hart.restore(before)
    return Int(steps)
  }

  /// Has the translator execute as many instructions as the interpreter has. Whether it came to the same.
  private func perform(_ steps: Int) -> Bool {
    let end = stepCount &+ UInt64(steps)
    var idleTurns = 0
    while idleTurns < 100 {
      let here = stepCount
      let left = Int64(bitPattern: end &- here)
      if left <= 0 { break }
      translator.execute(Int(left), exactly: true)
      idleTurns = stepCount == here ? idleTurns + 1 : 0
    }
    fault?(hart.state)
    return HartState.agree(expected, hart.state) && rehearsal.agrees
  }

  /// Goes back to the beginning of the stretch.
  private func undo() {
    rehearsal.takeBack()
    hart.restore(before)
  }

  /// Whether both come to the same after `count` instructions, beginning with no remembered translations.
  private func agree(_ count: Int) -> Bool {
    hart.forgetTranslations()
    let steps = rehearse(count)
    hart.forgetTranslations()
    return perform(steps)
  }

  /// Finds the first instruction after which the engines differ, describes the difference, and has the machine stop
  /// there.
  private func report(_ steps: Int) {
    var (agreed, differing) = (0, steps)
    while differing - agreed > 1 {
      let middle = (agreed + differing) / 2
      if agree(middle) { agreed = middle } else { differing = middle }
      undo()
    }
    _ = agree(differing)
    var report = AuditReport(
      interpreted: expected.pointee, translated: hart.state.pointee, pages: rehearsal.pages)
    undo()
    report.setTrace(trace(to: differing), ledger)
    _ = rehearse(differing - report.trace.count)
    let text = report.text(before: expected.pointee)
    difference = text
    hart.requestPause()
    hart.environment?.engineFailed(hart, text)
  }

  /// The last instructions that the interpreter executes before it has done `count`, the oldest first.
  private func trace(to count: Int) -> [AuditReport.Step] {
    (max(0, count - Trace.maximumLength)..<count).map { index in
      _ = rehearse(index)
      if index > 0 { hart.restore(expected) }
      defer { hart.restore(before) }
      let pc = hart.pc
      return AuditReport.Step(
        pc: pc, physical: hart.physicalAddress(pc, size: 2, .fetch)?.physical, bits: hart.instruction(at: pc))
    }
  }
}
