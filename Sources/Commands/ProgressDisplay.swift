import Foundation
import Images
import Synchronization

/// Shows the progress of a build on standard error: one line that changes on a terminal, a line for each step elsewhere.
final class ProgressDisplay: Sendable {
  private struct State {
    var step: ImageProgress.Step?
    var line = ""
    var lastUpdate = Date.distantPast
  }

  private let isTerminal = isatty(STDERR_FILENO) == 1
  private let start = Date()
  private let state = Mutex(State())

  func show(_ progress: ImageProgress) {
    state.withLock { state in
      let isNewStep = progress.step != state.step
      state.step = progress.step
      guard isTerminal else {
        if isNewStep { write("[\(elapsed)] \(progress.step.rawValue)\n") }
        return
      }
      let now = Date()
      guard isNewStep || now.timeIntervalSince(state.lastUpdate) > 0.1 else { return }
      if isNewStep, !state.line.isEmpty { write("\n") }
      state.lastUpdate = now
      state.line = line(progress)
      write("\r\u{1B}[K" + state.line)
    }
  }

  func warn(_ text: String) {
    state.withLock { state in
      write((isTerminal && !state.line.isEmpty ? "\n" : "") + "yadori: warning: \(text)\n")
      state.line = ""
    }
  }

  func finish() {
    state.withLock { state in
      if isTerminal, !state.line.isEmpty { write("\n") }
      state.line = ""
    }
  }

  private var elapsed: String {
    let seconds = Int(Date().timeIntervalSince(start))
    return "\(seconds / 60):" + String(format: "%02d", seconds % 60)
  }

  private func line(_ progress: ImageProgress) -> String {
    var text = "[\(elapsed)] \(progress.step.rawValue)"
    if let fraction = progress.fraction { text += " \(Int(fraction * 100))%" }
    if let done = progress.completedBytes {
      text += " \(done >> 20)"
      if let total = progress.totalBytes { text += " of \(total >> 20)" }
      text += " MiB"
    }
    if let detail = progress.detail { text += " \(detail)" }
    return String(text.prefix(100))
  }

  private func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
