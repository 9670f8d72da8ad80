// Package child runs the processes that a measurement or a test consists of: the
// programs under test, and this program again in other roles, such as that of a
// mail site.
//
// A Group ends all its processes when it is closed, the youngest first. They
// end too when this process is killed: the kernel ends the programs (on Linux),
// and a role ends with its standard input.
//
// A role is asked through net/rpc on its standard input and output; Roles.Run
// and Serve are the other side of StartAs.
//
// Usage tells what a process has used so far. It works on Linux only, as the
// measurements do.
package child
