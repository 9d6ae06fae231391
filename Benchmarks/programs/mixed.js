// Floating point, objects, strings, maps and sorting for the JavaScript engine's compilers.
function waves(n) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.sqrt(i) * Math.sin(i % 100);
  return sum;
}
function words(n) {
  const seen = new Map();
  let x = 1;
  for (let i = 0; i < n; i++) {
    x = (x * 48271) % 2147483647;
    const word = "w" + (x % 5003);
    seen.set(word, (seen.get(word) || 0) + 1);
  }
  return [...seen].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 3);
}
class Point {
  constructor(x, y) { this.x = x; this.y = y; }
  plus(other) { return new Point(this.x + other.x, this.y + other.y); }
}
function walk(n) {
  let place = new Point(0, 0);
  const step = new Point(1, 2);
  for (let i = 0; i < n; i++) place = place.plus(step);
  return place.x + place.y;
}
console.log(waves(300000).toFixed(6), JSON.stringify(words(60000)), walk(400000));
