// Package clock builds a program whose system clock can be stepped while it
// runs, and steps it.
//
// Nothing in Linux sets the clock for one process: time namespaces move the
// monotonic clock and leave CLOCK_REALTIME alone, and a static Go program loads
// no library that could stand before the call. So the program is built with an
// overlay (go help build, -overlay): the toolchain's own package time, in which
// Now adds a number of seconds to what the system says. The number lies in a file
// that the program maps into its memory. The monotonic reading stays as it is,
// as it does when a real clock is set; timers and deadlines go by that.
//
// What does not ask package time is not stepped: the times of files, above all.
package clock
