// Command lapwing is the whole of Lapwing in one binary.
package main

func main() {}
