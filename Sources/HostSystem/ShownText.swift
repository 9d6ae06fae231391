extension String {
  /// The same text without control characters, which a terminal would obey: for words that a guest may have chosen.
  public var withoutControls: String {
    String(String.UnicodeScalarView(unicodeScalars.filter { $0.properties.generalCategory != .control }))
  }
}
