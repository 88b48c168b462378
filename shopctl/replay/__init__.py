"""Real orders, end to end: TPC-H through the public RPCs, and then every book is reconciled.

`tpch` draws orders from TPC-H and states, in SQL, what every book has to say in the end; `driver`
puts them through the shop and rides out whatever fails meanwhile; `books` reads the books of every
service and of the outside world; `reconcile` compares the two, to the cent.
"""
