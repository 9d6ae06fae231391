import Dispatch
import Synchronization

/// The modules of one kernel and how they depend on each other.
package struct KernelModules: Sendable {
  /// By name.
  package let modules: [String: KernelModule]

  package init(_ modules: [KernelModule]) {
    self.modules = Dictionary(modules.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// Reads modules as a package has them, compressed or not; on all processors, since there are thousands.
  package init(compressed files: [(path: String, content: [UInt8])]) throws {
    let results = Mutex<[KernelModule]>([])
    let failure = Mutex<ImageError?>(nil)
    DispatchQueue.concurrentPerform(iterations: (files.count + 31) / 32) { batch in
      var read: [KernelModule] = []
      for file in files[(batch * 32)..<min(files.count, batch * 32 + 32)] {
        do {
          let object = try decompress(file.content, limit: 1 << 28, name: file.path)
          read.append(try KernelModule(path: file.path, object: object))
        } catch {
          failure.withLock { $0 = error as? ImageError }
        }
      }
      results.withLock { $0 += read }
    }
    if let error = failure.withLock({ $0 }) { throw error }
    self.init(results.withLock { $0 }.sorted { $0.path < $1.path })
  }

  /// All that a module needs directly or indirectly, each before what needs it, without the module itself.
  package func dependencies(of name: String) -> [String] {
    var order: [String] = []
    var visited: Set<String> = []
    func visit(_ name: String) {
      guard visited.insert(name).inserted, let module = modules[name] else { return }
      module.dependencies.forEach(visit)
      order.append(name)
    }
    visit(name)
    return order.dropLast()
  }

  /// The order in which to load the wanted modules and all that they need. Names that aren't modules are left out: they
  /// are built into the kernel.
  package func loadOrder(of wanted: [String]) -> [KernelModule] {
    var order: [KernelModule] = []
    var visited: Set<String> = []
    func visit(_ name: String) {
      guard visited.insert(name).inserted, let module = modules[name] else { return }
      module.softPredecessors.forEach(visit)
      module.dependencies.forEach(visit)
      order.append(module)
    }
    wanted.forEach(visit)
    return order
  }
}
