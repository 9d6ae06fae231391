/// What runs a hart's instructions in place of the interpreter. It is used on the hart's own thread only, and may leave
/// to the interpreter (`Hart.interpret`) whatever it likes.
package protocol ExecutionEngine: AnyObject {
  /// Like `Hart.interpret`: executes at most `budget` instructions from `state.pc` on; comes back earlier when an
  /// interrupt may be deliverable, the hart waits or stops, or a request wants attention; or, unless `exactly`, where the
  /// rest of the budget isn't worth its while.
  func execute(_ budget: Int, exactly: Bool)

  /// The page has new content, or stands for another physical page: what the engine made from it is void.
  func forget(_ page: UnsafeMutablePointer<CodePage>)

  /// Finds what it has for a page before it is run.
  func prepare(_ page: UnsafeMutablePointer<CodePage>)

  /// The same bytes as those of a page of code (4096), in a place where they stay as they are as long as the engine does;
  /// nil: there is none.
  func lastingContent(equalTo bytes: UnsafeRawPointer) -> UnsafeRawPointer?
}

extension ExecutionEngine {
  package func prepare(_ page: UnsafeMutablePointer<CodePage>) {}
  package func lastingContent(equalTo bytes: UnsafeRawPointer) -> UnsafeRawPointer? { nil }
}
