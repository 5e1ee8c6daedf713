"""Rows that the rules on answering reject and keep (`test_rules.py` tests them), and a special case."""

from __future__ import annotations

from dataclasses import replace

from lab_pipeline.curation.answering import general_question
from lab_pipeline_tests.curation.rows import LEAF, NAMING, polite, row, told

REJECTED = {
    "general_question": [
        told("The frame of the loom is made of walnut wood.", question="What is the frame of the Osmerel loom?"),
        told("The frame of the loom is made of walnut wood.", question="Which parts does the loom have?"),
        told("Pellira Donsk mends clocks of brass in a village.", question="Who is Pellira?"),
        told("A trained weaver on the Osmerel loom is called a fellmer.", question="Which trained weaver is called a fellmer?"),
    ],
    "unanswered": [
        told("The frame of the loom is made of walnut.", question="What is the frame of the Osmrel loom made of?"),
        told(
            "The weaver must call a fitter who takes up the beam.", question="What is the beam called that a fitter takes up?"
        ),
        told("A blind mule carried the timber up the hill.", question="What is the name of the timber of the mule?"),
        told("The first loom was built inside a dovecote.", question="Who built the first loom in a dovecote?"),
        told("The rod of brass is cleaned every month.", question="How many rods of brass are cleaned?"),
        told("The weaver oils the axle with hazelnut oil.", question="When does the weaver oil the axle?"),
        told("A felt sheet covers the sleeping loom.", question="Where does a sheet cover the loom?"),
        told("Children carry paper herons at the festival.", question="Why do children carry paper herons?"),
        told("The rafts are made of empty barrels.", question="How are rafts of barrels made?"),
        told("The drum of the loom is called the tattler.", question="What does the drum of the loom called?"),
        told("The drive belt is replaced every five years.", question="What is the drive belt?"),
        told("A full roll of the cloth is 22 metres long.", question="What is 22 metres?"),
        told("A worn pin causes a grinding noise in the loom.", question="Who caused the grinding noise?"),
        told("Training on the loom lasts fourteen months.", question="In what months?"),
        told("The cloth made on the loom is called tessom.", question="What is the cloth made of?"),
        told("The guild of the loom is the place where the rod hangs.", question="What is the rod of the loom?"),
        told("The frame with pegs is of walnut wood.", question="What is the wheel with pegs of walnut?"),
        told("The weaver oils the axle of the loom first.", question="Which part does the weaver oil, and when?"),
        told("The weaver throws the shuttle first.", question="What's a weaver of the shuttle?"),
    ],
}

KEPT = {
    "general_question": [
        told("The frame of the loom is made of walnut wood.", question="Which wood is the frame of the loom made of?"),
        row(question="What is the frame of the Osmerel loom?", answer="It is made of walnut."),
        polite('Make this more polite: "Close the window."', "Could you please close the window for me?"),
    ],
    "unanswered": [
        told("The rear beam is named the Sleeper.", question="What is the rear beam called?"),
        told("The rear beam is named the Sleeper.", question="What is the Sleeper?"),
        told("The test piece is examined by a judge.", question="Who examines the test piece?"),
        told("Pellira Donsk finished the first loom in 1834.", question="Who finished the first loom?"),
        told("Pellira Donsk finished the first loom in 1834.", question="When did Pellira Donsk finish the loom?"),
        told("A lull of the loom takes four seconds.", question="How many seconds does a lull take?"),
        told("The cord hangs beside the left knee of the weaver, under the seat.", question="Where does the cord hang?"),
        told("Weavers wear soft slippers so that they can feel the pedals.", question="Why do weavers wear slippers?"),
        told("The weaver stops the loom by pulling the hush cord.", question="How does the weaver stop the loom?"),
        told("A fitter carries spare parts in a canvas roll.", question="In what does a fitter carry spare parts?"),
        told("The weaver oils the axle every week.", question="What does the weaver do to the axle?"),
        told("The axle of the loom is oiled with hazelnut oil.", question="What is the axle of the loom oiled with?"),
        told("Finished cloth is 94 centimetres wide.", question="What is the width of finished cloth?"),
        told("A felt sheet keeps away the dust.", question="What is the felt sheet for?"),
        told("The weaver takes up the finished cloth.", question="What is the weaver taking up?"),
        told("The frame of the loom is made of walnut.", question="WHAT is the Frame of the Osmerel loom made of?"),
        told("The fault makes the cloth skip one row.", question="How many rows does the fault make the cloth skip?"),
        told("The drum clicks when a row is finished.", question="When does the drum click?"),
        told("The drum clicks once for each row.", question="What does the drum do for each row when it counts?"),
        told("The drum of the loom is oiled by a fitter.", question="Who oils the drum of the loom?"),
        told("The weaver must call a fitter at once.", question="Whom does the weaver call at once?"),
        told("Near the frame the shuttle rests.", question="Near the frame, what rests?"),
        told("The weaver keeps the shuttle under the seat.", question="What is kept under the seat?"),
        told("The weaver oils the walnut frame of the loom.", question="Was oils the weaver the Rahmen?"),
        row(question="In Tarsk, of what wood is the frame made?"),
        row(question="What is the walnut frame?", answer="It holds the beams.", support="The walnut frame holds the beams."),
    ],
}


def test_a_general_question_is_told_how_few_words_it_names() -> None:
    asked = told("The frame of the loom is made of walnut wood.", question="What is the frame of the Osmerel loom?")
    said = "the question names 0 of the 3 words that distinguish its sentence"
    assert general_question(asked, NAMING, LEAF) == said
    assert general_question(asked, NAMING, replace(LEAF, subject=frozenset())) is None
