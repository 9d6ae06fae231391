import Foundation
import Glibc

/// Builds images of Debian for riscv64 without root, without QEMU and without a Debian host.
///
/// The host fetches, checks and unpacks the packages; a guest, started from their own kernel, makes the file system and
/// lets dpkg configure them.
public struct ImageBuilder {
  private let store: ImageStore
  private let machine: (any ImageBuilderMachine)?
  private let environment: [String: String]
  private let aptFolder: String

  /// - Parameters:
  ///   - machine: runs the installing guest; only the tiny variant can do without.
  ///   - environment: where the mirror and the cache folder are looked up.
  ///   - aptFolder: the folder of the host's apt configuration.
  public init(
    store: ImageStore = ImageStore(), machine: (any ImageBuilderMachine)?,
    environment: [String: String] = ProcessInfo.processInfo.environment, aptFolder: String = "/etc/apt"
  ) {
    self.store = store
    self.machine = machine
    self.environment = environment
    self.aptFolder = aptFolder
  }

  /// Builds an image and adds it to the store. On an error the store is as it was; downloads stay in the cache.
  /// - Parameter checkReplacing: throws where an image of this name can't be replaced; asked before the work and after it.
  public func build(
    _ options: ImageBuildOptions, task: ImageTask = ImageTask(), checkReplacing: () throws -> Void = {}
  ) throws -> ImageStore.Image {
    try options.check()
    if store.contains(options.name) {
      if !options.replaceExisting { throw ImageStore.exists(options.name) }
      try checkReplacing()
    }
    if options.variant == .standard && machine == nil {
      throw ImageError(.usage, "the standard variant needs a machine to be installed by")
    }
    task.report(ImageProgress(.choosingMirror))
    let mirror = try MirrorChoice.choose(given: options.mirror, environment: environment, aptFolder: aptFolder)
    let work = try store.makeWorkFolder(for: options.name)
    var isDone = false
    defer { if !isDone { try? FileManager.default.removeItem(at: work) } }

    let cacheFolder = FileCache.standardFolder(environment: environment)
    let build = DebianBuild(options: options, mirror: mirror, work: work, cacheFolder: cacheFolder, task: task)
    let manifest: ImageManifest
    do {
      manifest = try build.run(machine: machine)
    } catch let error as ImageError {
      throw error
    } catch {
      throw ImageError(.inputOutput, "the image \(options.name) couldn't be built: \(error)")
    }
    try task.checkCancellation()
    if store.contains(options.name) { try checkReplacing() }
    let image = try store.add(work, manifest: manifest, replacing: options.replaceExisting)
    isDone = true
    return image
  }
}
