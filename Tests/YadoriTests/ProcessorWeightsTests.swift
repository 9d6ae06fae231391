import Testing
import Yadori

/// Who gets how much where machines of different weights want more than there is.
@Suite struct ProcessorWeightsTests {
  private func limit(
    _ me: (Double, Double, Double), _ others: [(Double, Double, Double)], unused: Double = 0
  ) -> Double? {
    let competitors = others.map { ProcessorWeights.Competitor(weight: $0.0, used: $0.1, wanted: $0.2) }
    return ProcessorWeights.limit(
      of: .init(weight: me.0, used: me.1, wanted: me.2), among: competitors, unused: unused)
  }

  @Test func byWeight() throws {
    let one = try #require(limit((100, 0.5, 1), [(200, 0.5, 1)]))
    #expect(abs(one - 1.0 / 3) < 1e-9)
    // Two processors: the heavy one can't use more than one.
    #expect(limit((100, 1, 1), [(300, 1, 1)]) == nil)
    let crowd = try #require(limit((100, 0.5, 1), [(300, 0.5, 1), (100, 0.5, 1), (100, 0.5, 1)]))
    #expect(abs(crowd - 1.0 / 3) < 1e-9)
  }

  @Test func whatOthersDoNotWantIsLeft() throws {
    let idle = try #require(limit((100, 0.8, 1), [(10_000, 0.1, 0.1)], unused: 0.05))
    #expect(abs(idle - 0.85) < 1e-9)
    #expect(limit((100, 0.1, 0.1), [(200, 0.9, 1)]) == nil)
    // Whoever was limited for nothing gets what lies idle.
    let wider = try #require(limit((100, 0.2, 1), [(200, 0.5, 0.5)], unused: 0.3))
    #expect(abs(wider - 0.5) < 1e-9)
  }

  @Test func nobodyIsLeftWithNothing() {
    #expect(limit((1, 0, 1), [(10_000, 1, 1)]) == 0.01)
  }
}
