"""Notifications: what customers are told about the outcome of their orders.

An event of an order becomes one mail, in three steps that commit one by one: the event is taken,
the mail is addressed and written down, the mail is sent. Each waits for the service that it needs,
the customers or the mail server, for a day before it asks for an operator.
"""
