// Package apple runs apnssim, the simulated Apple, as a child, and drives it over
// its management interface.
package apple
