// Package render writes a [topology.Machine] for its readers: [Tree] for people
// at a terminal, [JSON] for programs.
package render
