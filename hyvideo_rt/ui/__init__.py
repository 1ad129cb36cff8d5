"""The web page: a process of its own that speaks only to the HTTP API.

client     our API, typed; what it refuses is raised as Refused
words      every visible word, in English and Chinese
form       the fields: the original's, and the sizes of the model that is served
cards      videos as HTML: being made, in the player, in the gallery
page       one language's page from a client and its words
guard      who may open the page, and what the browser may load
run        the process, alone or started by the server
"""
