// Package fpgaprogram has the ports of FPGAs programmed with the functions that claims ask
// for. The daemon opens no device, so it is done where a container is about to start: by a
// hook, a program that the container runtime runs on the host, as root, before the
// container's first instruction. If it fails the container does not start, and what it says
// is in the pod's Events.
//
//	driver: Folder.Find (is there such a program for this port?) ─→ grant
//	        CDI spec with Job.Hook ─→ runtime runs the hook
//	hook:   ParseJob ─→ Programmer.Run: card's lock ─→ afu_id is right? ─ yes ─→ done
//	                                                       │ no
//	        Folder.Find ─→ engine's node: version, program ─→ afu_id is right now?
//
// The hook runs for each container that is created, also for one that starts again. Most
// find the function in its place and end at once.
package fpgaprogram
