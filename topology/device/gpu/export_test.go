package gpu

// AskTwice asks a driver and makes sense of its answer.
var AskTwice = askTwice
