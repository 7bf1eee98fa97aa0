"""A page in the browser: two pictures, the options as sliders, our sets beside SIFT and ORB.

networks.py loads the sets, analysis.py compares, on pictures.py; app.py shows it through Gradio
(extra ``[viewer]``), on parts.py.
"""
