import HostSystem
import Testing
import Yadori

@Suite struct ConfigurationTests {
  /// What was saved on a larger host runs here, and it is said what is different.
  @Test func aMachineOfAnotherHost() throws {
    let there = HostResources.processors
    var configuration = VirtualMachineConfiguration(boot: .init())
    configuration.processorLimit = Double(there.count) + 0.5
    configuration.pinnedProcessors = [there[0], 8000]
    #expect(throws: MachineError.self) { try configuration.check() }
    var words = configuration.adaptToHost()
    #expect(words.count == 2 && words[0].contains("this host has \(there.count)") && words[1].contains("8000"))
    #expect(configuration.processorLimit == nil && configuration.pinnedProcessors == [there[0]])
    try configuration.check()
    configuration.pinnedProcessors = [8000]
    words = configuration.adaptToHost()
    #expect(words.count == 1 && configuration.pinnedProcessors == nil)
    #expect(configuration.adaptToHost().isEmpty)
  }
}
