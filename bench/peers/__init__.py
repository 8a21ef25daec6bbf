"""The same work on queues that people would pick for it, written as their documentation says.

A call for each row, its answer stored, its postback stored, who was busy called once more. No permits, no pace, no
lists, no look-up of lost answers: a peer does less than the dispatcher.
"""
