import Synchronization

/// How far a build or a download is.
public struct ImageProgress: Sendable, Equatable {
  public enum Step: String, Sendable {
    case choosingMirror = "Choosing a mirror"
    case fetchingIndex = "Fetching the package lists"
    case resolving = "Choosing packages"
    case fetchingPackages = "Fetching packages"
    case fetchingImage = "Fetching the image"
    case unpacking = "Unpacking"
    case reading = "Reading the image"
    case writing = "Writing the archive"
    case startingGuest = "Starting the installing guest"
    case formatting = "Making the file system"
    case installingFiles = "Installing files"
    case configuring = "Configuring packages"
    case finishing = "Finishing"
  }

  public var step: Step
  /// Between 0 and 1; nil where nobody can tell.
  public var fraction: Double?
  public var completedBytes: UInt64?
  public var totalBytes: UInt64?
  /// What is being worked on, for example a package's name.
  public var detail: String?

  public init(
    _ step: Step, fraction: Double? = nil, completedBytes: UInt64? = nil, totalBytes: UInt64? = nil,
    detail: String? = nil
  ) {
    self.step = step
    self.fraction = fraction
    self.completedBytes = completedBytes
    self.totalBytes = totalBytes
    self.detail = detail
  }
}

/// What a build or a download tells its caller, and how the caller stops it.
public final class ImageTask: Sendable {
  private let cancelled = Atomic<Bool>(false)
  private let onProgress: @Sendable (ImageProgress) -> Void
  private let onWarning: @Sendable (String) -> Void
  private let parent: ImageTask?

  /// - Parameters:
  ///   - progress: called often, on the thread that works.
  ///   - warning: called with one plain line for what a person should know although the work goes on.
  public init(
    progress: @escaping @Sendable (ImageProgress) -> Void = { _ in },
    warning: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    onProgress = progress
    onWarning = warning
    parent = nil
  }

  private init(
    progress: @escaping @Sendable (ImageProgress) -> Void, warning: @escaping @Sendable (String) -> Void,
    parent: ImageTask
  ) {
    onProgress = progress
    onWarning = warning
    self.parent = parent
  }

  /// A task that passes all on to another and sees its warnings.
  package convenience init(relay: ImageTask, onWarning: @escaping @Sendable (String) -> Void) {
    self.init(
      progress: { relay.report($0) },
      warning: {
        onWarning($0)
        relay.warn($0)
      }, parent: relay)
  }

  /// Asks the work to stop soon. It then throws an `ImageError` with the code `cancelled` and leaves nothing half-made.
  /// May be called from any thread.
  public func cancel() { cancelled.store(true, ordering: .relaxed) }

  public var isCancelled: Bool { cancelled.load(ordering: .relaxed) || (parent?.isCancelled ?? false) }

  package func checkCancellation() throws {
    if isCancelled { throw ImageError(.cancelled, "stopped; what was downloaded is kept for the next time") }
  }

  package func report(_ progress: ImageProgress) { onProgress(progress) }
  package func warn(_ line: String) { onWarning(line) }
}
