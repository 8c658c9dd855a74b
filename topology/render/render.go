// Package render writes a [topology.Machine] for its readers: [Tree] for people
// at a terminal, [SVG] for people with a browser, [JSON] for programs.
package render
