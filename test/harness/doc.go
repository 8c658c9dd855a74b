// Package harness drives a testbed cluster with topolet on it, for the
// end-to-end tests and for the demonstration. It runs the testbed's command and
// helm as a person would, speaks to the API server, and reads the kernel's own
// files for what became of a container.
package harness
