// Package heap holds tests only. They dump the heap of a service that remembers ten
// thousand valid keys, and search it for them.
package heap
